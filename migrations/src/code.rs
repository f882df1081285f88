//! The codes of findings and failures: stable names that a user can search for in `docs/operations.md`, and what each
//! kind of failure leads to.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The command line, the request or the plan is wrong.
    Usage,
    /// The live systems are not ready.
    NotReady,
    /// Someone else decided otherwise, or the slice's stage forbids it.
    Conflict,
    /// Given up safely: the old owner serves.
    Aborted,
    /// Committed, but the way forward is unfinished.
    Unfinished,
    /// Both sides were compared and differ.
    Differences,
    /// The work may go on, only the watching ended.
    TimedOut,
    /// It may work again by itself.
    Unavailable,
    /// It works again after someone removed the cause.
    Stopped,
    Unauthorized,
    NotFound,
    /// Something of strangler itself or of this machine failed. Kinds of a newer strangler are read as this.
    #[serde(other)]
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub exit: u8,
    /// The HTTP status of the API's answer.
    pub status: u16,
    pub retry: Retry,
}

/// When the same thing is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Now and then, without anyone doing anything.
    ByItself,
    /// Only after someone did what the remedy says.
    AfterRemedy,
}

impl Kind {
    pub const fn policy(self) -> Policy {
        use Retry::{AfterRemedy, ByItself};
        let (exit, status, retry) = match self {
            Kind::Usage => (2, 422, AfterRemedy),
            Kind::NotReady => (3, 422, AfterRemedy),
            Kind::Conflict => (4, 409, AfterRemedy),
            Kind::Aborted => (5, 409, AfterRemedy),
            Kind::Unfinished => (6, 503, ByItself),
            Kind::Differences => (7, 409, AfterRemedy),
            Kind::TimedOut => (8, 504, ByItself),
            Kind::Unavailable => (1, 503, ByItself),
            Kind::Stopped => (1, 503, AfterRemedy),
            Kind::Unauthorized => (1, 401, AfterRemedy),
            Kind::NotFound => (2, 404, AfterRemedy),
            Kind::Error => (1, 500, AfterRemedy),
        };
        Policy { exit, status, retry }
    }
}

/// Declares the codes: each with its name in JSON and in the documents, and its kind.
macro_rules! codes {
    ($($code:ident = $name:literal, $kind:ident;)*) => {
        /// What is wrong or doubtful, by a stable name such as `plan.unknown-key`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[serde(rename = $name)] $code,)*
            /// A code of a newer strangler: its message and remedy are still shown.
            #[serde(rename = "unknown", other)]
            Unknown,
        }

        impl Code {
            pub const ALL: &[Code] = &[$(Code::$code,)* Code::Unknown];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Code::$code => $name,)*
                    Code::Unknown => "unknown",
                }
            }

            pub const fn kind(self) -> Kind {
                match self {
                    $(Code::$code => Kind::$kind,)*
                    Code::Unknown => Kind::Error,
                }
            }

            pub const fn policy(self) -> Policy {
                self.kind().policy()
            }
        }
    };
}

codes! {
    CommandFailed = "command.failed", Error;
    CommandTimedOut = "command.timed-out", TimedOut;
    CommandUsage = "command.usage", Usage;

    UpNone = "up.none", Conflict;
    UpRunning = "up.running", Conflict;

    PartFailed = "part.failed", Error;
    PartListen = "part.listen", Error;

    ApiFailed = "api.failed", Error;
    ApiNoPath = "api.no-path", NotFound;
    ApiOtherVersion = "api.other-version", Usage;
    ApiToken = "api.token", Unauthorized;
    ApiUnreachable = "api.unreachable", Unavailable;
    ApiUnreadable = "api.unreadable", Error;

    HoldExpired = "hold.expired", Unavailable;
    HoldFull = "hold.full", Unavailable;
    HoldPatience = "hold.patience", NotReady;
    HoldRoom = "hold.room", NotReady;

    PlanBadDatabase = "plan.bad-database", Usage;
    PlanBadListen = "plan.bad-listen", Usage;
    PlanBadName = "plan.bad-name", Usage;
    PlanBadSecret = "plan.bad-secret", Usage;
    PlanBadSticky = "plan.bad-sticky", Usage;
    PlanBadUpstream = "plan.bad-upstream", Usage;
    PlanBadValue = "plan.bad-value", Usage;
    PlanBadVariable = "plan.bad-variable", Usage;
    PlanColumnTwice = "plan.column-twice", Usage;
    PlanCopiedOtherwise = "plan.copied-otherwise", Stopped;
    PlanDuplicateKey = "plan.duplicate-key", Usage;
    PlanEdited = "plan.edited", Conflict;
    PlanEmptySlice = "plan.empty-slice", Usage;
    PlanFilter = "plan.filter", Usage;
    PlanInUse = "plan.in-use", Conflict;
    PlanIncomplete = "plan.incomplete", Usage;
    PlanKafkaOption = "plan.kafka-option", Usage;
    PlanKeyLost = "plan.key-lost", NotReady;
    PlanLiteralPassword = "plan.literal-password", Usage;
    PlanLiteralSecret = "plan.literal-secret", Usage;
    PlanMissingDatabase = "plan.missing-database", Usage;
    PlanMissingKey = "plan.missing-key", Usage;
    PlanMissingVariable = "plan.missing-variable", Usage;
    PlanMoreFindings = "plan.more-findings", Usage;
    PlanNoSlices = "plan.no-slices", Usage;
    PlanNoWayBack = "plan.no-way-back", Usage;
    PlanNotTried = "plan.not-tried", NotReady;
    PlanOpenListen = "plan.open-listen", Usage;
    PlanOtherCollation = "plan.other-collation", NotReady;
    PlanOtherSide = "plan.other-side", Usage;
    PlanOutbox = "plan.outbox", Usage;
    PlanReverseDiffers = "plan.reverse-differs", NotReady;
    PlanRouteTwice = "plan.route-twice", Usage;
    PlanRoutesAmbiguous = "plan.routes-ambiguous", Usage;
    PlanRoutesCross = "plan.routes-cross", Usage;
    PlanSameDatabase = "plan.same-database", Usage;
    PlanSameListen = "plan.same-listen", Usage;
    PlanSameTopic = "plan.same-topic", Usage;
    PlanSetFails = "plan.set-fails", NotReady;
    PlanSql = "plan.sql", Usage;
    PlanSyntax = "plan.syntax", Usage;
    PlanTableTwice = "plan.table-twice", Usage;
    PlanTooLarge = "plan.too-large", Usage;
    PlanTooManyRoutes = "plan.too-many-routes", Usage;
    PlanTwoLogs = "plan.two-logs", Usage;
    PlanUnknownKey = "plan.unknown-key", Usage;
    PlanUnknownService = "plan.unknown-service", Usage;
    PlanUnreadable = "plan.unreadable", Usage;
    PlanUnsound = "plan.unsound", Usage;
    PlanUnsteadySql = "plan.unsteady-sql", Usage;
    PlanUpstreamTwice = "plan.upstream-twice", Usage;
    PlanUselessReverse = "plan.useless-reverse", Usage;
    PlanVersion = "plan.version", Usage;
    PlanWrongKind = "plan.wrong-kind", Usage;

    SliceAborted = "slice.aborted", Aborted;
    SliceForeignWrites = "slice.foreign-writes", Stopped;
    SliceImpossible = "slice.impossible", Usage;
    SliceLaneLost = "slice.lane-lost", Stopped;
    SliceNotReady = "slice.not-ready", NotReady;
    SliceShared = "slice.shared", Conflict;
    SliceStage = "slice.stage", Conflict;
    SliceStillRead = "slice.still-read", Conflict;
    SliceStopped = "slice.stopped", Stopped;
    SliceUnfinished = "slice.unfinished", Unfinished;
    SliceUnknown = "slice.unknown", Usage;
    SliceWayBack = "slice.way-back", NotReady;

    DatabaseEncoding = "database.encoding", NotReady;
    DatabasePooler = "database.pooler", NotReady;
    DatabaseUnreachable = "database.unreachable", Unavailable;

    ClockSkew = "clock.skew", NotReady;

    ServerSynchronousStandby = "server.synchronous-standby", NotReady;
    ServerAsyncStandby = "server.async-standby", NotReady;
    ServerMinorVersion = "server.minor-version", NotReady;
    ServerStandby = "server.standby", NotReady;
    ServerVersion = "server.version", NotReady;

    RoleOwnsTables = "role.owns-tables", NotReady;
    RoleShared = "role.shared", NotReady;
    RoleSuperuser = "role.superuser", NotReady;

    InstallFollowed = "install.followed", Conflict;
    InstallMissing = "install.missing", NotReady;
    InstallNoFunction = "install.no-function", NotReady;
    InstallNoPublication = "install.no-publication", NotReady;
    InstallLockedOut = "install.locked-out", NotReady;
    InstallNoUrl = "install.no-url", Usage;
    InstallNotPublished = "install.not-published", NotReady;
    InstallOtherPlan = "install.other-plan", NotReady;
    InstallOutdated = "install.outdated", NotReady;
    InstallRefused = "install.refused", Error;

    SourceColumnSent = "source.column-sent", NotReady;
    SourceForeignKeyAcross = "source.foreign-key-across", NotReady;
    SourceGeneratedColumn = "source.generated-column", NotReady;
    SourceGeneratedInSet = "source.generated-in-set", NotReady;
    SourceGeneratedKey = "source.generated-key", NotReady;
    SourceIdentity = "source.identity", Stopped;
    SourceLargeObject = "source.large-object", NotReady;
    SourceLatePrimaryKey = "source.late-primary-key", NotReady;
    SourceListedIdentity = "source.listed-identity", NotReady;
    SourceLongTransaction = "source.long-transaction", NotReady;
    SourceNoColumn = "source.no-column", NotReady;
    SourceNoFreeSlot = "source.no-free-slot", NotReady;
    SourceNoFreeWalSender = "source.no-free-wal-sender", NotReady;
    SourceNoPrimaryKey = "source.no-primary-key", NotReady;
    SourceNoReplicationRight = "source.no-replication-right", NotReady;
    SourceNoTable = "source.no-table", NotReady;
    SourceNoUrl = "source.no-url", NotReady;
    SourceOldRows = "source.old-rows", NotReady;
    SourcePartitioned = "source.partitioned", NotReady;
    SourcePreparedTransaction = "source.prepared-transaction", NotReady;
    SourceRefuses = "source.refuses", NotReady;
    SourceReplicaIdentity = "source.replica-identity", NotReady;
    SourceSchemaChanged = "source.schema-changed", Stopped;
    SourceSecretColumn = "source.secret-column", NotReady;
    SourceSharedSequence = "source.shared-sequence", NotReady;
    SourceSlotIdle = "source.slot-idle", NotReady;
    SourceSlotLost = "source.slot-lost", NotReady;
    SourceToastInSet = "source.toast-in-set", NotReady;
    SourceType = "source.type", NotReady;
    SourceUnmarkedTrigger = "source.unmarked-trigger", NotReady;
    SourceUnreachable = "source.unreachable", NotReady;
    SourceUnsupportedType = "source.unsupported-type", Stopped;
    SourceWalLevel = "source.wal-level", NotReady;
    SourceWalLimitLow = "source.wal-limit-low", NotReady;
    SourceWalUnlimited = "source.wal-unlimited", NotReady;

    SinkDamaged = "sink.damaged", Stopped;
    SinkDeferredConstraint = "sink.deferred-constraint", Stopped;
    SinkForeignKeyAction = "sink.foreign-key-action", NotReady;
    SinkForeignKeyCascades = "sink.foreign-key-cascades", NotReady;
    SinkForeignKeyCircle = "sink.foreign-key-circle", NotReady;
    SinkForeignKeyOutside = "sink.foreign-key-outside", NotReady;
    SinkForeignKeyStrict = "sink.foreign-key-strict", NotReady;
    SinkGate = "sink.gate", Stopped;
    SinkGeneratedColumn = "sink.generated-column", NotReady;
    SinkIdentityAlways = "sink.identity-always", NotReady;
    SinkJsonRewritten = "sink.json-rewritten", NotReady;
    SinkNarrowed = "sink.narrowed", Stopped;
    SinkNarrowerType = "sink.narrower-type", NotReady;
    SinkNoColumn = "sink.no-column", NotReady;
    SinkNoRight = "sink.no-right", Stopped;
    SinkNoTable = "sink.no-table", NotReady;
    SinkNoTemporary = "sink.no-temporary", NotReady;
    SinkNoTrigger = "sink.no-trigger", NotReady;
    SinkNoUrl = "sink.no-url", NotReady;
    SinkNotEmpty = "sink.not-empty", NotReady;
    SinkNotInstalled = "sink.not-installed", Stopped;
    SinkNotNull = "sink.not-null", NotReady;
    SinkNotOurs = "sink.not-ours", Stopped;
    SinkOtherKey = "sink.other-key", NotReady;
    SinkOtherServer = "sink.other-server", Stopped;
    SinkOtherShape = "sink.other-shape", Stopped;
    SinkReferenceCircle = "sink.reference-circle", Stopped;
    SinkReferenced = "sink.referenced", Stopped;
    SinkRefusedRow = "sink.refused-row", Stopped;
    SinkRefuses = "sink.refuses", NotReady;
    SinkRowExists = "sink.row-exists", Stopped;
    SinkSameDatabase = "sink.same-database", NotReady;
    SinkSuperseded = "sink.superseded", Stopped;
    SinkType = "sink.type", NotReady;
    SinkUnfilledColumn = "sink.unfilled-column", NotReady;
    SinkUnmarkedTrigger = "sink.unmarked-trigger", NotReady;
    SinkUnreachable = "sink.unreachable", NotReady;

    TableBusy = "table.busy", NotReady;
    TableInherited = "table.inherited", NotReady;
    TableKind = "table.kind", NotReady;
    TableNoRight = "table.no-right", NotReady;
    TableNoSchemaRight = "table.no-schema-right", NotReady;
    TablePartition = "table.partition", NotReady;
    TableRowSecurity = "table.row-security", NotReady;
    TableRule = "table.rule", NotReady;
    TableUnlogged = "table.unlogged", NotReady;

    UpstreamErrors = "upstream.errors", Unavailable;
    UpstreamUnreachable = "upstream.unreachable", NotReady;
    UpstreamUnwell = "upstream.unwell", Stopped;

    WriterUnmarked = "writer.unmarked", NotReady;
    WriterUnwatched = "writer.unwatched", NotReady;

    HouseDisk = "house.disk", NotReady;

    CopyNoTable = "copy.no-table", Stopped;
    CopyOtherCount = "copy.other-count", Stopped;
    CopyRefusedRow = "copy.refused-row", Stopped;

    GateAhead = "gate.ahead", Stopped;
    GateNotInstalled = "gate.not-installed", Stopped;
    GateOther = "gate.other", Stopped;

    CaptureForeignSlot = "capture.foreign-slot", Stopped;
    CaptureOtherPlan = "capture.other-plan", Stopped;
    CaptureOtherServer = "capture.other-server", Stopped;
    CaptureOtherTable = "capture.other-table", Stopped;
    CaptureRowTooLarge = "capture.row-too-large", Stopped;
    CaptureUnsendable = "capture.unsendable", Stopped;

    LaneNoProgress = "lane.no-progress", Stopped;

    LogDamaged = "log.damaged", Stopped;
    LogDiskFull = "log.disk-full", Unavailable;
    LogOrder = "log.order", Stopped;
    LogOtherHistory = "log.other-history", Stopped;
    LogOtherTimeline = "log.other-timeline", Stopped;
    LogReplication = "log.replication", Stopped;
    LogRights = "log.rights", Stopped;
    PublishStopped = "publish.stopped", Stopped;
    PublishSkipped = "publish.skipped", Stopped;
    LogRowTooLarge = "log.row-too-large", Stopped;
    LogTopicCompacted = "log.topic-compacted", Stopped;
    LogTopicName = "log.topic-name", Stopped;
    LogUnreachable = "log.unreachable", NotReady;
    LogUnknown = "log.unknown", Stopped;

    BridgeOtherPlan = "bridge.other-plan", NotReady;
    ProxyCertificate = "proxy.certificate", NotReady;
    ProxyForwardedIgnored = "proxy.forwarded-ignored", NotReady;
    ProxyOpenKey = "proxy.open-key", NotReady;
    ProxySeveral = "proxy.several", NotReady;
    BridgeWaits = "bridge.waits", Unavailable;

    JournalConflict = "journal.conflict", Conflict;
    JournalDamaged = "journal.damaged", Stopped;
    JournalElsewhere = "journal.elsewhere", Stopped;
    JournalForgottenRoute = "journal.forgotten-route", Stopped;
    JournalForgottenSlice = "journal.forgotten-slice", Stopped;
    JournalGainedTables = "journal.gained-tables", Stopped;
    JournalRefused = "journal.refused", Stopped;
    JournalRewound = "journal.rewound", Stopped;
    JournalUncertain = "journal.uncertain", Unavailable;
    JournalUnreachable = "journal.unreachable", Unavailable;

    ReadsRecalled = "reads.recalled", Unavailable;
    ReadsWait = "reads.wait", Unavailable;
    ReadsWithheld = "reads.withheld", Unavailable;

    VerifyDifferences = "verify.differences", Differences;
    VerifyLocked = "verify.locked", Stopped;
    VerifyUndecided = "verify.undecided", TimedOut;
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// By its name, so that a log can be searched for it.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_travels_by_its_name() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(serde_json::from_value::<Code>(code.as_str().into()).unwrap(), *code);
        }
    }

    #[test]
    fn exit_codes_are_those_that_the_documents_promise() {
        let exits = [
            (Kind::Error, 1),
            (Kind::Unavailable, 1),
            (Kind::Stopped, 1),
            (Kind::Unauthorized, 1),
            (Kind::Usage, 2),
            (Kind::NotFound, 2),
            (Kind::NotReady, 3),
            (Kind::Conflict, 4),
            (Kind::Aborted, 5),
            (Kind::Unfinished, 6),
            (Kind::Differences, 7),
            (Kind::TimedOut, 8),
        ];
        for (kind, exit) in exits {
            let policy = kind.policy();
            assert_eq!(policy.exit, exit, "{kind:?}");
            assert!((400..600).contains(&policy.status), "a failure is never a success: {kind:?}");
        }
    }

    #[test]
    fn a_code_of_a_newer_strangler_can_be_read() {
        assert_eq!(serde_json::from_str::<Code>("\"sink.of-tomorrow\"").unwrap(), Code::Unknown);
    }
}
