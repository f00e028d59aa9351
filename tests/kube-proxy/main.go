// kube-proxy writes the rules of a few fixed Services into the network namespace that it runs in, and ends.
//
// It is the proxier of the real kube-proxy, set up as kube-proxy sets it up on EKS, without an API server. The script
// record beside it stores the rules, and the tests load them.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/events"
	"k8s.io/component-helpers/node/util/sysctl"
	"k8s.io/kubernetes/pkg/proxy"
	"k8s.io/kubernetes/pkg/proxy/iptables"
	"k8s.io/kubernetes/pkg/proxy/ipvs"
	"k8s.io/kubernetes/pkg/proxy/ipvs/ipset"
	utilipvs "k8s.io/kubernetes/pkg/proxy/ipvs/util"
	"k8s.io/kubernetes/pkg/proxy/nftables"
	proxyutil "k8s.io/kubernetes/pkg/proxy/util"
	utiliptables "k8s.io/kubernetes/pkg/util/iptables"
)

// How the configuration of EKS and kube-proxy's defaults set it up.
const (
	masqueradeBit = 14
	syncPeriod    = 30 * time.Second
	minSyncPeriod = time.Second
)

// pods in the order of their numbers, with the node of each.
var pods = []struct{ name, node string }{{"one", "n0"}, {"two", "n0"}, {"three", "n1"}}

// podPort is where pods listen, for TCP and UDP.
const podPort = 8080

// addresses of one family. A Service with the number N has the address services + N and the node port 30000 + N.
// A pod with the number N has the address pods + N.
type addresses struct {
	family         v1.IPFamily
	kind           discovery.AddressType
	node           string
	services, pods string
}

var families = map[string]addresses{
	"ipv4": {v1.IPv4Protocol, discovery.AddressTypeIPv4, "192.0.2.100", "172.20.0.%d", "192.0.2.20%d"},
	"ipv6": {v1.IPv6Protocol, discovery.AddressTypeIPv6, "2001:db8::100", "fd00:20::%d", "2001:db8::20%d"},
}

// service leads to some pods.
type service struct {
	name   string
	number int
	pods   []int
	// change makes it differ from a Service with a cluster address alone.
	change func(*v1.ServiceSpec)
}

func services() []service {
	all := []int{1, 2, 3}
	sticky := func(spec *v1.ServiceSpec) {
		seconds := int32(10800)
		spec.SessionAffinity = v1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &v1.SessionAffinityConfig{ClientIP: &v1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	list := []service{{"all", 10, all, nil}, {"sticky", 20, all, sticky}}
	for index, pod := range pods {
		number := index + 1
		list = append(list,
			service{pod.name, 10 + number, []int{number}, nodePort(10+number, v1.ServiceExternalTrafficPolicyCluster)},
			service{pod.name + "-local", 20 + number, []int{number}, nodePort(20+number, v1.ServiceExternalTrafficPolicyLocal)},
		)
	}
	return list
}

func nodePort(number int, policy v1.ServiceExternalTrafficPolicy) func(*v1.ServiceSpec) {
	return func(spec *v1.ServiceSpec) {
		spec.Type = v1.ServiceTypeNodePort
		spec.ExternalTrafficPolicy = policy
		for index := range spec.Ports {
			spec.Ports[index].NodePort = int32(30000 + number)
		}
	}
}

func (s service) object(of addresses) *v1.Service {
	address := fmt.Sprintf(of.services, s.number)
	internal := v1.ServiceInternalTrafficPolicyCluster
	spec := v1.ServiceSpec{
		Type:                  v1.ServiceTypeClusterIP,
		ClusterIP:             address,
		ClusterIPs:            []string{address},
		IPFamilies:            []v1.IPFamily{of.family},
		InternalTrafficPolicy: &internal,
		Ports: []v1.ServicePort{
			{Name: "tcp", Protocol: v1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(podPort)},
			{Name: "udp", Protocol: v1.ProtocolUDP, Port: 80, TargetPort: intstr.FromInt32(podPort)},
		},
	}
	if s.change != nil {
		s.change(&spec)
	}
	return &v1.Service{ObjectMeta: s.meta(), Spec: spec}
}

func (s service) slice(of addresses) *discovery.EndpointSlice {
	ready, port := true, int32(podPort)
	var endpoints []discovery.Endpoint
	for _, number := range s.pods {
		endpoints = append(endpoints, discovery.Endpoint{
			Addresses:  []string{fmt.Sprintf(of.pods, number)},
			Conditions: discovery.EndpointConditions{Ready: &ready, Serving: &ready},
			NodeName:   &pods[number-1].node,
		})
	}
	meta := s.meta()
	meta.Labels = map[string]string{discovery.LabelServiceName: s.name}
	names, protocols := []string{"tcp", "udp"}, []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP}
	ports := []discovery.EndpointPort{
		{Name: &names[0], Protocol: &protocols[0], Port: &port},
		{Name: &names[1], Protocol: &protocols[1], Port: &port},
	}
	return &discovery.EndpointSlice{ObjectMeta: meta, AddressType: of.kind, Endpoints: endpoints, Ports: ports}
}

func (s service) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "default", Name: s.name}
}

func proxier(ctx context.Context, mode, node string, of addresses) (proxy.Provider, error) {
	detector := proxyutil.NewNoOpLocalDetector()
	recorder := events.NewFakeRecorder(100)
	ip := net.ParseIP(of.node)
	switch mode {
	case "iptables":
		return iptables.NewProxier(ctx, of.family, utiliptables.NewBestEffort()[of.family], sysctl.New(), syncPeriod,
			minSyncPeriod, false, true, masqueradeBit, detector, node, ip, recorder, nil, nil, false)
	case "ipvs":
		return ipvs.NewProxier(ctx, of.family, utiliptables.NewBestEffort()[of.family], utilipvs.New(), ipset.New(),
			sysctl.New(), syncPeriod, minSyncPeriod, nil, false, 0, 0, 0, false, masqueradeBit, detector, node, ip,
			recorder, nil, "", nil, false)
	case "nftables":
		bits := map[v1.IPFamily]string{v1.IPv4Protocol: "/32", v1.IPv6Protocol: "/128"}
		primary := []string{of.node + bits[of.family]}
		return nftables.NewProxier(ctx, of.family, syncPeriod, minSyncPeriod, false, masqueradeBit, detector, node, ip,
			recorder, nil, primary, false)
	default:
		return nil, fmt.Errorf("no mode %q", mode)
	}
}

func run(mode, family, node string) error {
	of, known := families[family]
	if !known {
		return fmt.Errorf("no family %q", family)
	}
	it, err := proxier(context.Background(), mode, node, of)
	if err != nil {
		return err
	}
	for _, service := range services() {
		it.OnServiceAdd(service.object(of))
		it.OnEndpointSliceAdd(service.slice(of))
	}
	// The second of these writes the rules before it returns.
	it.OnServiceSynced()
	it.OnEndpointSlicesSynced()
	return nil
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: kube-proxy iptables|ipvs|nftables ipv4|ipv6 n0|n1")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "kube-proxy:", err)
		os.Exit(1)
	}
}
