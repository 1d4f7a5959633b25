//! The rpcs that need no session: GetKnowledge, ListScopes, GetScope, WatchScope, GetDigests.

use bytes::Bytes;
use syncline::pb;
use syncline_tests::database::Kind;
use tonic::Code;

use super::cases::{Case, assert_refused, check_table};
use super::kit::{Bare, bytes};
use super::sessions::parameter;

#[rustfmt::skip] // A case a line.
const GET_KNOWLEDGE: &[Case<pb::GetKnowledgeRequest>] = &[
    ("no replica", |r| r.replica_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "replica_id"),
    ("unknown scope", |r| r.scope = "nope".into(), Code::NotFound, "SCOPE_NOT_FOUND", "\"nope\""),
    ("bad scope name", |r| r.scope = "../etc".into(), Code::InvalidArgument, "REQUEST_INVALID", "scope"),
    ("a parameter that is not there", |r| r.parameters = vec![parameter("region", 1)], Code::InvalidArgument, "PARAMETER_INVALID", "no parameter"),
    ("too many parameters", |r| r.parameters = vec![parameter("region", 1); 33], Code::InvalidArgument, "REQUEST_INVALID", "parameters"),
    ("random knowledge", |r| r.knowledge = bytes(&[0xff; 40]), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("oversized knowledge", |r| r.knowledge = bytes(&vec![1; 600 << 10]), Code::ResourceExhausted, "KNOWLEDGE_TOO_LARGE", "at most"),
    ("half a fingerprint", |r| r.schema_fingerprint = bytes(&[7; 5]), Code::InvalidArgument, "REQUEST_INVALID", "schema_fingerprint"),
];

#[rustfmt::skip] // A case a line.
const LIST_SCOPES: &[Case<pb::ListScopesRequest>] = &[
    ("a negative page", |r| r.page_size = -1, Code::InvalidArgument, "REQUEST_INVALID", "page_size: must not be negative"),
    ("a page token that is none", |r| r.page_token = "../..".into(), Code::InvalidArgument, "REQUEST_INVALID", "page_token"),
    ("an oversized page token", |r| r.page_token = "x".repeat(1 << 20), Code::InvalidArgument, "REQUEST_INVALID", "page_token"),
];

#[rustfmt::skip] // A case a line.
const GET_SCOPE: &[Case<pb::GetScopeRequest>] = &[
    ("no scope", |r| r.scope = String::new(), Code::InvalidArgument, "REQUEST_INVALID", "scope"),
    ("unknown scope", |r| r.scope = "nope".into(), Code::NotFound, "SCOPE_NOT_FOUND", "\"nope\""),
    ("a quote", |r| r.scope = "sh\"op".into(), Code::InvalidArgument, "REQUEST_INVALID", "scope"),
    ("local SQL", |r| r.with_local_sql = true, Code::Unimplemented, "FEATURE_UNSUPPORTED", "ask without with_local_sql"),
];

#[rustfmt::skip] // A case a line.
const WATCH_SCOPE: &[Case<pb::WatchScopeRequest>] = &[
    ("no replica", |r| r.replica_id = Bytes::new(), Code::InvalidArgument, "REQUEST_INVALID", "replica_id"),
    ("unknown scope", |r| r.scope = "nope".into(), Code::NotFound, "SCOPE_NOT_FOUND", "\"nope\""),
    ("a parameter that is not there", |r| r.parameters = vec![parameter("region", 1)], Code::InvalidArgument, "PARAMETER_INVALID", "no parameter"),
    ("random knowledge", |r| r.knowledge = bytes(&[0xff; 40]), Code::InvalidArgument, "KNOWLEDGE_INVALID", "knowledge"),
    ("half a fingerprint", |r| r.schema_fingerprint = bytes(&[7; 5]), Code::InvalidArgument, "REQUEST_INVALID", "schema_fingerprint"),
    ("time that runs backward", |r| r.interval_min = Some(prost_types::Duration { seconds: -1, nanos: 0 }), Code::InvalidArgument, "REQUEST_INVALID", "interval_min"),
    ("a day between messages", |r| r.interval_min = Some(prost_types::Duration { seconds: 86_400, nanos: 0 }), Code::InvalidArgument, "REQUEST_INVALID", "interval_min"),
];

#[rustfmt::skip] // A case a line.
const GET_DIGESTS: &[Case<pb::GetDigestsRequest>] = &[
    ("as it should be", |_| {}, Code::Unimplemented, "FEATURE_UNSUPPORTED", "digests"),
    ("no scope", |r| r.scope = String::new(), Code::InvalidArgument, "REQUEST_INVALID", "scope"),
];

#[tokio::test]
async fn questions_refuse_what_they_can_not_answer() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let mut bare = Bare::start(kind).await;
        let poll = |bare: &Bare, _: &_| pb::GetKnowledgeRequest {
            replica_id: bare.replica.clone(),
            scope: "shop".into(),
            schema_fingerprint: bytes(&bare.schema.fingerprint()),
            ..Default::default()
        };
        check_table(
            &mut bare,
            "GetKnowledge",
            poll,
            async |c, r| c.get_knowledge(r).await.map(drop),
            GET_KNOWLEDGE,
        )
        .await;
        let list = |_: &Bare, _: &_| pb::ListScopesRequest::default();
        check_table(
            &mut bare,
            "ListScopes",
            list,
            async |c, r| c.list_scopes(r).await.map(drop),
            LIST_SCOPES,
        )
        .await;
        let scope = |_: &Bare, _: &_| pb::GetScopeRequest { scope: "shop".into(), with_local_sql: false };
        check_table(&mut bare, "GetScope", scope, async |c, r| c.get_scope(r).await.map(drop), GET_SCOPE)
            .await;
        let watch = |bare: &Bare, _: &_| pb::WatchScopeRequest {
            replica_id: bare.replica.clone(),
            scope: "shop".into(),
            schema_fingerprint: bytes(&bare.schema.fingerprint()),
            ..Default::default()
        };
        check_table(
            &mut bare,
            "WatchScope",
            watch,
            async |c, r| c.watch_scope(r).await?.into_inner().message().await.map(drop),
            WATCH_SCOPE,
        )
        .await;
        let digests = |_: &Bare, _: &_| pb::GetDigestsRequest { scope: "shop".into(), ..Default::default() };
        check_table(
            &mut bare,
            "GetDigests",
            digests,
            async |c, r| c.get_digests(r).await.map(drop),
            GET_DIGESTS,
        )
        .await;
    }
}

#[tokio::test]
async fn a_dropped_scope_is_gone_for_everyone() {
    let mut bare = Bare::start(Kind::Sqlite).await;
    let session = bare.open().await;
    let database = bare.hub.url();
    let dropped = tokio::process::Command::new(syncline_tests::binary())
        .args(["scope", "drop", "shop", "--database", &database])
        .output()
        .await
        .unwrap();
    assert!(dropped.status.success(), "{}", String::from_utf8_lossy(&dropped.stderr));
    let request = bare.begin_request();
    let answer = bare.client.begin_session(request).await.map(drop);
    assert_refused("BeginSession", answer, Code::NotFound, "SCOPE_NOT_FOUND", "\"shop\"");
    let good = bare.good();
    let request = bare.apply_request(&session, &good);
    let status = super::kit::apply(&mut bare.client, request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    bare.process.assert_sound();
}
