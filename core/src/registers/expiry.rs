//! Values whose time has passed: the first owner that seems alive removes them, also if nobody asks.
//!
//! It has them read, and a read that finds a value's time passed removes it by a round of its own ([`crate::cell`]). Owners
//! whose clocks differ do so sooner or later, and never disagree on what there is.

use alloc::vec::Vec;

use super::proposer::Proposers;
use super::{Registers, Store, Timer};
use crate::bytes::Bytes;
use crate::limits;
use crate::protocol::{Ctx, Effects};
use crate::time::Duration;

/// How often they are looked for.
const LOOK: Duration = Duration::secs(1);

/// Whether they are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sweep {
    is_on: bool,
}

impl Sweep {
    /// From now on they are looked for, if any value has a deadline.
    pub(super) fn begin(&mut self, store: &Store, fx: &mut Effects<Registers>) {
        if store.has_deadlines() && !self.is_on {
            self.is_on = true;
            fx.arm(LOOK, Timer::Expiry);
        }
    }

    pub(super) fn on_timer(
        &mut self,
        store: &Store,
        cx: &mut Ctx<'_>,
        proposers: &mut Proposers,
        fx: &mut Effects<Registers>,
    ) {
        self.is_on = false;
        self.begin(store, fx);
        remove(store, cx, proposers, fx);
    }
}

/// Has those removed that this node is to remove.
fn remove(store: &Store, cx: &mut Ctx<'_>, proposers: &mut Proposers, fx: &mut Effects<Registers>) {
    if cx.view.serving().is_err() || !cx.is_seated() {
        return;
    }
    let is_mine = |key: &&Bytes| {
        let owners = cx.view.chosen.as_ref().map(|chosen| chosen.owners_of(key).current).unwrap_or_default();
        owners.iter().find(|&&owner| owner == cx.me || cx.view.seems_alive(owner)) == Some(&cx.me)
    };
    let mine: Vec<Bytes> = store.over(cx.now.wall).filter(is_mine).take(limits::EXPIRED).cloned().collect();
    for key in mine {
        proposers.begin_expiry(cx, &key, fx);
    }
}
