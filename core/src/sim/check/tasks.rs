//! Tasks: each has one result, whoever worked on it and however often it was handed out anew.
//!
//! A worker holds a task under a *fencing token*; whoever is given the task later holds a higher one. A worker that was
//! paused may come back with its result long after that, and the result must be refused where it is kept, by its token.

use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;

/// Names a task.
pub type TaskId = u64;
/// Raised with every worker that is given the task.
pub type Token = u64;
/// The digest of a result.
pub type Digest = u64;

/// What submitters and workers were told.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tasks: BTreeMap<TaskId, Task>,
}

#[derive(Clone, Debug, Default)]
struct Task {
    tokens: BTreeSet<Token>,
    /// The result that somebody was told is the task's, and under which token.
    result: Option<(Token, Digest)>,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Somebody works on, or has a result of, what nobody submitted.
    Invented(TaskId),
    /// Two workers hold the same token, or a later one holds a lower token than an earlier one.
    TokenNotRaised(TaskId, Token),
    /// A result was accepted from somebody who was never given the task.
    NotClaimed(TaskId, Token),
    /// A result was accepted although a later holder's had been.
    StaleAccepted(TaskId, Token),
    /// Two results.
    TwoResults(TaskId),
    /// Acknowledged, and after quiet without a result.
    Lost(TaskId),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invented(task) => write!(f, "nobody submitted task {task}"),
            Self::TokenNotRaised(task, token) => write!(f, "task {task} was given out again under token {token}"),
            Self::NotClaimed(task, token) => write!(f, "task {task} has a result of token {token}, which nobody holds"),
            Self::StaleAccepted(task, token) => write!(f, "task {task} took the result of token {token} after a later"),
            Self::TwoResults(task) => write!(f, "task {task} has two results"),
            Self::Lost(task) => write!(f, "task {task} was acknowledged and has no result"),
        }
    }
}

impl Tasks {
    /// A submitter was told that its task is taken.
    pub fn submitted(&mut self, task: TaskId) {
        self.tasks.entry(task).or_default();
    }

    /// A worker was told that a task is its own. Called in the order in which they were told.
    ///
    /// # Errors
    ///
    /// If that cannot be.
    pub fn claimed(&mut self, task: TaskId, token: Token) -> Result<(), Violation> {
        let known = self.tasks.get_mut(&task).ok_or(Violation::Invented(task))?;
        if known.tokens.last().is_some_and(|last| token <= *last) {
            return Err(Violation::TokenNotRaised(task, token));
        }
        known.tokens.insert(token);
        Ok(())
    }

    /// Somebody was told that this is the task's result: the worker, when it was accepted, or whoever asked for it.
    ///
    /// # Errors
    ///
    /// If that cannot be.
    pub fn result(&mut self, task: TaskId, token: Token, digest: Digest) -> Result<(), Violation> {
        let known = self.tasks.get_mut(&task).ok_or(Violation::Invented(task))?;
        if !known.tokens.contains(&token) {
            return Err(Violation::NotClaimed(task, token));
        }
        match known.result {
            None => known.result = Some((token, digest)),
            Some((_, first)) if first != digest => return Err(Violation::TwoResults(task)),
            Some((first, _)) if token < first => return Err(Violation::StaleAccepted(task, token)),
            Some(_) => (),
        }
        Ok(())
    }

    /// After quiet: every task that was taken has its result.
    ///
    /// # Errors
    ///
    /// The first without.
    pub fn check_all_done(&self) -> Result<(), Violation> {
        let lost = self.tasks.iter().find(|(_, task)| task.result.is_none());
        lost.map_or(Ok(()), |(&task, _)| Err(Violation::Lost(task)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given_twice() -> Tasks {
        let mut tasks = Tasks::default();
        tasks.submitted(1);
        assert_eq!((tasks.claimed(1, 5), tasks.claimed(1, 6)), (Ok(()), Ok(())));
        tasks
    }

    #[test]
    fn a_task_that_was_handed_out_anew_has_one_result() {
        let mut tasks = given_twice();
        assert_eq!(tasks.check_all_done(), Err(Violation::Lost(1)));
        assert_eq!((tasks.result(1, 6, 42), tasks.result(1, 6, 42)), (Ok(()), Ok(())));
        assert_eq!(tasks.check_all_done(), Ok(()));
    }

    #[test]
    fn a_paused_worker_that_comes_back_is_noticed_if_it_is_believed() {
        let mut tasks = given_twice();
        assert_eq!(tasks.result(1, 6, 42), Ok(()));
        assert_eq!(tasks.result(1, 5, 42), Err(Violation::StaleAccepted(1, 5)));
        assert_eq!(tasks.result(1, 5, 41), Err(Violation::TwoResults(1)));
    }

    #[test]
    fn tokens_rise_and_nothing_is_invented() {
        let mut tasks = given_twice();
        assert_eq!(tasks.claimed(1, 6), Err(Violation::TokenNotRaised(1, 6)));
        assert_eq!(tasks.claimed(1, 4), Err(Violation::TokenNotRaised(1, 4)));
        assert_eq!(tasks.result(1, 9, 42), Err(Violation::NotClaimed(1, 9)));
        assert_eq!(tasks.claimed(2, 1), Err(Violation::Invented(2)));
        assert_eq!(tasks.result(2, 1, 1), Err(Violation::Invented(2)));
    }
}
