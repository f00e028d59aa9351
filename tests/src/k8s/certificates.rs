//! A certificate authority by the openssl command, and kubeconfigs with its certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::process::Command;

use crate::process::output;

/// Issues certificates. Each is two files in its directory, `NAME.crt` and `NAME.key`.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// A new one, in a new directory.
    ///
    /// # Errors
    ///
    /// If a file cannot be written, or openssl fails.
    pub async fn make(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        // Without a file of its own, openssl would add the extensions of the machine's.
        let configuration = "[req]\ndistinguished_name=subject\n[subject]\n";
        std::fs::write(dir.join("openssl.cnf"), configuration).context("configure openssl")?;
        let authority = Self { dir };
        let extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign"];
        authority.request("ca", "/CN=ca", &[], &extensions).await?;
        Ok(authority)
    }

    /// A certificate for client and server: `/O=group/CN=user`, and where it serves, as `IP:10.0.0.1,DNS:name`.
    ///
    /// # Errors
    ///
    /// If openssl fails.
    pub async fn issue(&self, name: &str, subject: &str, serves: &str) -> Result<()> {
        let serves = format!("subjectAltName={serves}");
        let mut extensions = vec![
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=digitalSignature",
            "extendedKeyUsage=clientAuth,serverAuth",
        ];
        if serves != "subjectAltName=" {
            extensions.push(&serves);
        }
        self.request(name, subject, &["-CA", "ca.crt", "-CAkey", "ca.key"], &extensions).await
    }

    /// As [`issue`](Self::issue), and the certificate has expired yesterday.
    ///
    /// # Errors
    ///
    /// If openssl fails.
    pub async fn issue_expired(&self, name: &str, subject: &str, serves: &str) -> Result<()> {
        self.issue(name, subject, serves).await?;
        // Only the command x509 makes certificates that have expired, and only from a request.
        let again = format!(
            "x509 -x509toreq -in {name}.crt -signkey {name}.key -copy_extensions copy -out {name}.csr"
        );
        let expired = format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -days -1 -copy_extensions copy -out {name}.crt"
        );
        for arguments in [again, expired] {
            let mut command = Command::new("openssl");
            command.current_dir(&self.dir).args(arguments.split(' '));
            output(&mut command).await?;
        }
        Ok(())
    }

    async fn request(
        &self,
        name: &str,
        subject: &str,
        issuer: &[&str],
        extensions: &[&str],
    ) -> Result<()> {
        let mut command = Command::new("openssl");
        command
            .current_dir(&self.dir)
            .args(["req", "-x509", "-config", "openssl.cnf", "-days", "30", "-nodes"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .args(["-subj", subject])
            .args(issuer)
            .args(extensions.iter().flat_map(|extension| ["-addext", *extension]));
        output(&mut command).await.map(|_| ())
    }

    /// A file of the authority.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes the certificates of `name` and of the authority into `dir`, with a kubeconfig `NAME.conf`.
    pub(super) fn hand_out(&self, name: &str, server: &str, dir: &Path) -> Result<()> {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        for file in ["ca.crt", &certificate, &key] {
            let from = self.file(file);
            let to = dir.join(file);
            if from != to {
                std::fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
            }
        }
        // Paths are relative to the kubeconfig.
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "default",
            "clusters": [{"name": "default", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
            "users": [{"name": "default", "user": {"client-certificate": certificate, "client-key": key}}],
            "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
        });
        std::fs::write(dir.join(format!("{name}.conf")), kubeconfig.to_string())
            .with_context(|| format!("write the kubeconfig of {name}"))
    }
}
