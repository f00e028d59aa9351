//! The daemon's own tasks. Each runs as long as the daemon: the end of one, or its panic, ends the daemon, since
//! a daemon without it would be silently wrong.

use std::future::Future;

use anyhow::anyhow;
use tokio::task::JoinSet;

/// Tasks that are not meant to end. Dropping this ends them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Tasks {
    /// Starts a task. `name` completes "the task that …".
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        // A panic carries no name, so the task itself runs in a task of its own.
        let task = tokio::spawn(task);
        let guard = AbortOnDrop(task.abort_handle());
        self.0.spawn(async move {
            let _guard = guard;
            let ended = task.await;
            (name, ended.unwrap_or_else(|panic| Err(anyhow!(panic))))
        });
    }

    /// The error that says which task has ended, and why. Never ready while all run.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok((name, Ok(())))) => anyhow!("the task that {name} has ended"),
            Some(Ok((name, Err(fault)))) => {
                fault.context(format!("the task that {name} has ended"))
            }
            Some(Err(fault)) => anyhow!(fault),
            None => std::future::pending().await,
        }
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn end_of_a_task_names_it_and_the_cause() {
        async fn check(
            task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
            expect: &str,
        ) {
            let mut tasks = Tasks::default();
            tasks.spawn("waits", std::future::pending());
            tasks.spawn("fails", task);
            let ended = format!("{:#}", tasks.ended().await);
            assert!(ended.starts_with("the task that fails has ended"), "{ended}");
            assert!(ended.contains(expect), "{ended}");
        }
        check(async { Ok(()) }, "").await;
        check(async { Err(anyhow!("no disk")) }, "no disk").await;
        check(async { panic!("out of range") }, "out of range").await;
    }
}
