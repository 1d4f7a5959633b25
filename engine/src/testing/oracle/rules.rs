//! The algebra's rules, each of which can be switched off, to show that the histories would notice.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Which rules are followed. Each is here because histories break without it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct Rules {
            $($(#[$doc])* pub $name: bool,)*
        }

        impl Rules {
            /// The names of all rules, in the order in which they are declared.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// All rules are followed: what the product does.
            #[must_use]
            pub const fn all() -> Self {
                Self { $($name: true,)* }
            }

            /// All rules but the one of this name; `None` if there is none.
            #[must_use]
            pub fn all_but(name: &str) -> Option<Self> {
                let mut rules = Self::all();
                match name {
                    $(stringify!($name) => rules.$name = false,)*
                    _ => return None,
                }
                Some(rules)
            }
        }
    };
}

rules! {
    // The session.
    /// Nothing is uploaded once the download of the session was asked for, also when it is taken up again.
    no_late_upload,
    /// Own rows are left out of a download only if the leaf's knowledge is not empty, and never if they are excepted.
    echo_off,
    /// A first download compares: clean rows that it does not contain go.
    first_full,
    /// A second snapshot sends what changed between the first and itself.
    resume_between,
    /// A snapshot's clock lacks the transactions that are open in it.
    snapshot_missing,

    // Conflicts.
    /// A row that came from the sender is no conflict for it, whatever a trigger made of it since.
    via,
    /// An update of a row that is not there, and has no tombstone, is a conflict; an insert is none.
    born,
    /// A row was not born if the hub has had the tick of its birth: its answer may have been lost.
    born_tick,
    /// A leaf that keeps its row against a delete means it as an insert from then on.
    born_on_delete,
    /// Whether a row was born counts from its last acknowledgement.
    born_ack,
    /// A leaf that keeps its row in a conflict marks it anew.
    keep_new_tick,
    /// What the engine marks at a leaf gets a new tick.
    mark_new,
    /// Rows are judged as they are after they were locked.
    lock_first,
    /// Rows are judged with the exceptions of the knowledge that the changes were made with.
    exc_made,

    // Rows that can't be applied.
    /// The knowledge that is learned carries the source's exceptions.
    exc_merge,
    /// An excepted row is answered with its present state, also if there is none.
    exc_state,
    /// A row that the leaf gives up is excepted, so that the hub's state of it comes.
    dead_except,

    // Identity.
    /// The hub's upload mark must be the one that was last answered, or the one that was last drawn.
    chain_upload,
    /// An upload is applied only if the hub's mark is still the one that the session began with, or the upload's own.
    chain_apply,
    /// The upload mark is drawn with the snapshot of the dirty rows, not before it.
    mark_after_snapshot,
    /// The answer to an upload makes its mark the only one that the leaf accepts.
    ack_link,
    /// The leaf's download mark must be one that the hub knows.
    chain_down,
    /// A leaf that diverged compares everything.
    diverged_reinit,
    /// A leaf that diverged uploads with empty made-with knowledge.
    diverged_made,
    /// A leaf that knows more than its hub compares everything.
    gate_reinit,

    // Log and fold.
    /// The greatest sequence number decides between a row's entries and its record.
    rec_seq,
    /// Entries and records are read in one statement.
    one_stmt,
    /// What was read while folding is used only once the fold has committed.
    fold_commit,
    /// A leaf folds before it applies, so that every edit counts as dirty.
    apply_fold,
    /// A row that a download replaces loses its entries along with its dirty record.
    take_log,

    // TRUNCATE.
    /// Who does not know of the last TRUNCATE made its changes with empty knowledge.
    trunc_made,
    /// Entries and records from before the last TRUNCATE no longer count.
    trunc_drop,
    /// Who does not know of the last TRUNCATE gets the table compared as a whole.
    trunc_full,
}
