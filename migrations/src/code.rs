//! The codes of findings and failures: stable names that a user can search for in `docs/operations.md`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Declares the codes, each with its name in JSON and in the documents.
macro_rules! codes {
    ($($code:ident = $name:literal,)*) => {
        /// What is wrong or doubtful, by a stable name such as `plan.unknown-key`.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $(#[doc = $name] #[serde(rename = $name)] $code,)*
            /// A code of a newer strangler: its message and remedy are still shown.
            #[serde(rename = "unknown", other)]
            Unknown,
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$code,)* Code::Unknown];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Code::$code => $name,)*
                    Code::Unknown => "unknown",
                }
            }
        }
    };
}

codes! {
    PlanBadDatabase = "plan.bad-database",
    PlanBadListen = "plan.bad-listen",
    PlanBadName = "plan.bad-name",
    PlanBadSecret = "plan.bad-secret",
    PlanBadSticky = "plan.bad-sticky",
    PlanBadUpstream = "plan.bad-upstream",
    PlanBadValue = "plan.bad-value",
    PlanBadVariable = "plan.bad-variable",
    PlanColumnTwice = "plan.column-twice",
    PlanCopiedOtherwise = "plan.copied-otherwise",
    PlanDuplicateKey = "plan.duplicate-key",
    PlanEmptySlice = "plan.empty-slice",
    PlanFilter = "plan.filter",
    PlanIncomplete = "plan.incomplete",
    PlanKeyLost = "plan.key-lost",
    PlanLiteralPassword = "plan.literal-password",
    PlanLiteralSecret = "plan.literal-secret",
    PlanMissingDatabase = "plan.missing-database",
    PlanMissingKey = "plan.missing-key",
    PlanMissingVariable = "plan.missing-variable",
    PlanMoreFindings = "plan.more-findings",
    PlanNoSlices = "plan.no-slices",
    PlanNoWayBack = "plan.no-way-back",
    PlanNotTried = "plan.not-tried",
    PlanOpenListen = "plan.open-listen",
    PlanOtherSide = "plan.other-side",
    PlanReverseDiffers = "plan.reverse-differs",
    PlanRouteTwice = "plan.route-twice",
    PlanRoutesCross = "plan.routes-cross",
    PlanSameDatabase = "plan.same-database",
    PlanSameListen = "plan.same-listen",
    PlanSameTopic = "plan.same-topic",
    PlanSetFails = "plan.set-fails",
    PlanSql = "plan.sql",
    PlanSyntax = "plan.syntax",
    PlanTableTwice = "plan.table-twice",
    PlanTooLarge = "plan.too-large",
    PlanTooManyRoutes = "plan.too-many-routes",
    PlanTwoLogs = "plan.two-logs",
    PlanUnknownKey = "plan.unknown-key",
    PlanUnknownService = "plan.unknown-service",
    PlanUnsteadySql = "plan.unsteady-sql",
    PlanUpstreamTwice = "plan.upstream-twice",
    PlanUselessReverse = "plan.useless-reverse",
    PlanVersion = "plan.version",
    PlanWrongKind = "plan.wrong-kind",

    ServerMinorVersion = "server.minor-version",
    ServerStandby = "server.standby",
    ServerVersion = "server.version",

    RoleOwnsTables = "role.owns-tables",
    RoleShared = "role.shared",
    RoleSuperuser = "role.superuser",

    InstallMissing = "install.missing",
    InstallNoFunction = "install.no-function",
    InstallNoPublication = "install.no-publication",
    InstallNotPublished = "install.not-published",
    InstallOtherPlan = "install.other-plan",
    InstallOutdated = "install.outdated",

    SourceForeignKeyAcross = "source.foreign-key-across",
    SourceGeneratedColumn = "source.generated-column",
    SourceGeneratedInSet = "source.generated-in-set",
    SourceIdentity = "source.identity",
    SourceLatePrimaryKey = "source.late-primary-key",
    SourceLongTransaction = "source.long-transaction",
    SourceNoColumn = "source.no-column",
    SourceNoFreeSlot = "source.no-free-slot",
    SourceNoFreeWalSender = "source.no-free-wal-sender",
    SourceNoPrimaryKey = "source.no-primary-key",
    SourceNoReplicationRight = "source.no-replication-right",
    SourceNoTable = "source.no-table",
    SourceNoUrl = "source.no-url",
    SourcePartitioned = "source.partitioned",
    SourcePreparedTransaction = "source.prepared-transaction",
    SourceRefuses = "source.refuses",
    SourceReplicaIdentity = "source.replica-identity",
    SourceSchemaChanged = "source.schema-changed",
    SourceSlotIdle = "source.slot-idle",
    SourceSlotLost = "source.slot-lost",
    SourceToastInSet = "source.toast-in-set",
    SourceType = "source.type",
    SourceUnreachable = "source.unreachable",
    SourceUnsupportedType = "source.unsupported-type",
    SourceWalLevel = "source.wal-level",
    SourceWalLimitLow = "source.wal-limit-low",
    SourceWalUnlimited = "source.wal-unlimited",

    SinkDamaged = "sink.damaged",
    SinkDeferredConstraint = "sink.deferred-constraint",
    SinkForeignKeyAction = "sink.foreign-key-action",
    SinkForeignKeyCascades = "sink.foreign-key-cascades",
    SinkForeignKeyCircle = "sink.foreign-key-circle",
    SinkForeignKeyOutside = "sink.foreign-key-outside",
    SinkGate = "sink.gate",
    SinkGeneratedColumn = "sink.generated-column",
    SinkIdentityAlways = "sink.identity-always",
    SinkJsonRewritten = "sink.json-rewritten",
    SinkNarrowerType = "sink.narrower-type",
    SinkNoColumn = "sink.no-column",
    SinkNoRight = "sink.no-right",
    SinkNoTable = "sink.no-table",
    SinkNoTemporary = "sink.no-temporary",
    SinkNoTrigger = "sink.no-trigger",
    SinkNoUrl = "sink.no-url",
    SinkNotEmpty = "sink.not-empty",
    SinkNotInstalled = "sink.not-installed",
    SinkNotNull = "sink.not-null",
    SinkNotOurs = "sink.not-ours",
    SinkOtherKey = "sink.other-key",
    SinkOtherServer = "sink.other-server",
    SinkOtherShape = "sink.other-shape",
    SinkReferenceCircle = "sink.reference-circle",
    SinkReferenced = "sink.referenced",
    SinkRefusedRow = "sink.refused-row",
    SinkRefuses = "sink.refuses",
    SinkSameDatabase = "sink.same-database",
    SinkSuperseded = "sink.superseded",
    SinkType = "sink.type",
    SinkUnfilledColumn = "sink.unfilled-column",
    SinkUnmarkedTrigger = "sink.unmarked-trigger",
    SinkUnreachable = "sink.unreachable",

    TableInherited = "table.inherited",
    TableKind = "table.kind",
    TableNoRight = "table.no-right",
    TableNoSchemaRight = "table.no-schema-right",
    TablePartition = "table.partition",
    TableRowSecurity = "table.row-security",
    TableUnlogged = "table.unlogged",

    UpstreamUnreachable = "upstream.unreachable",

    HouseDisk = "house.disk",

    CopyNoTable = "copy.no-table",
    CopyOtherCount = "copy.other-count",
    CopyRefusedRow = "copy.refused-row",

    GateNotInstalled = "gate.not-installed",

    CaptureForeignSlot = "capture.foreign-slot",
    CaptureOtherPlan = "capture.other-plan",
    CaptureOtherServer = "capture.other-server",
    CaptureOtherTable = "capture.other-table",
    CaptureRowTooLarge = "capture.row-too-large",

    LogDamaged = "log.damaged",
    LogDiskFull = "log.disk-full",
    LogOrder = "log.order",
    LogOtherTimeline = "log.other-timeline",
    LogReplication = "log.replication",
    LogRights = "log.rights",
    LogRowTooLarge = "log.row-too-large",
    LogTopicCompacted = "log.topic-compacted",
    LogTopicName = "log.topic-name",
    LogUnknown = "log.unknown",

    BridgeOtherPlan = "bridge.other-plan",
    BridgeWaits = "bridge.waits",

    JournalConflict = "journal.conflict",
    JournalDamaged = "journal.damaged",
    JournalElsewhere = "journal.elsewhere",
    JournalForgottenRoute = "journal.forgotten-route",
    JournalForgottenSlice = "journal.forgotten-slice",
    JournalGainedTables = "journal.gained-tables",
    JournalRefused = "journal.refused",
    JournalRewound = "journal.rewound",
    JournalUncertain = "journal.uncertain",
    JournalUnreachable = "journal.unreachable",

    ReadsWait = "reads.wait",
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
    fn a_code_of_a_newer_strangler_can_be_read() {
        assert_eq!(serde_json::from_str::<Code>("\"sink.of-tomorrow\"").unwrap(), Code::Unknown);
    }
}
