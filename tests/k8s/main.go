// kubernetes is a whole cluster's programs in one file: its first argument names the program, the rest are its arguments.
//
// They are the real ones, from their own packages. The one thing that is ours is etcd's configuration: a single member
// that forgets everything with its machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// programs by name. A command is made only when it runs: making one registers its flags and metrics.
var programs = map[string]func() *cobra.Command{
	"etcd":                    etcdCommand,
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllers.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	if len(os.Args) < 2 || programs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: kubernetes PROGRAM ARGUMENTS...")
		os.Exit(2)
	}
	name := os.Args[1]
	os.Args = os.Args[1:]
	command := programs[name]()
	if name == "kubectl" {
		// Its errors are for people, and it has its own way to print them.
		util.CheckErr(cli.RunNoErrOutput(command))
		return
	}
	os.Exit(cli.Run(command))
}

func etcdCommand() *cobra.Command {
	var dir, client, peer string
	command := &cobra.Command{
		Use:  "etcd",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return etcd(dir, client, peer) },
	}
	command.Flags().StringVar(&dir, "data-dir", "", "where the data lie")
	command.Flags().StringVar(&client, "client-url", "http://127.0.0.1:2379", "where it listens for the API server")
	command.Flags().StringVar(&peer, "peer-url", "http://127.0.0.1:2380", "where it would listen for other members")
	return command
}

// etcd serves until a signal ends it.
func etcd(dir, client, peer string) error {
	clients, err := url.Parse(client)
	if err != nil {
		return err
	}
	peers, err := url.Parse(peer)
	if err != nil {
		return err
	}
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "warn"
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peers}, []url.URL{*peers}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	// The data end with the test. A crash of the machine may lose them.
	config.UnsafeNoFsync = true
	member, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer member.Close()
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	select {
	case <-ended.Done():
		return nil
	case err = <-member.Err():
		return errors.Join(errors.New("etcd ended"), err)
	}
}
