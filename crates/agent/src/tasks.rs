//! The daemon's own tasks. Each runs as long as the daemon. If one ends or panics, the daemon ends, since it
//! would be silently wrong without the task.

use std::convert::Infallible;
use std::future::Future;

use anyhow::anyhow;
use tokio::task::JoinSet;

/// What a task leaves that has ended.
pub(crate) trait End: Send + 'static {
    fn cause(self) -> anyhow::Result<()>;
}

impl End for anyhow::Result<()> {
    fn cause(self) -> Self {
        self
    }
}

impl End for () {
    fn cause(self) -> anyhow::Result<()> {
        Ok(self)
    }
}

impl End for Infallible {
    fn cause(self) -> anyhow::Result<()> {
        match self {}
    }
}

/// Tasks that must not end. Dropping this value ends them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(JoinSet<(&'static str, anyhow::Result<()>)>);

impl Tasks {
    /// Starts a task. `name` completes "the task that …".
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = impl End> + Send + 'static,
    ) {
        // A panic does not carry the name, so an outer task keeps it and waits for the inner one.
        let task = tokio::spawn(task);
        let guard = AbortOnDrop(task.abort_handle());
        self.0.spawn(async move {
            let _guard = guard;
            let ended = task.await;
            (name, ended.map_or_else(|panic| Err(anyhow!(panic)), End::cause))
        });
    }

    /// The error that names the first task that has ended, and the cause. Never ready while all tasks run.
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
    async fn ended_task_is_named_with_its_cause() {
        async fn check(
            task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
            expect: &str,
        ) {
            let mut tasks = Tasks::default();
            tasks.spawn("waits", std::future::pending::<()>());
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
