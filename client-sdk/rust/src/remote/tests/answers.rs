//! Whatever a service sends is checked before anything is made of it.

use syncline::ids::SessionId;

use super::super::answers;
use super::service;
use super::*;

fn refused<T: std::fmt::Debug>(checked: Result<T>) {
    let error = checked.unwrap_err();
    assert!(!error.reason().is_temporary(), "{error:?}");
}

#[test]
fn an_answer_to_begin_without_what_it_must_have_is_refused() {
    let whole = service::begun;
    assert!(answers::begun(SessionId::fresh(), whole()).is_ok());
    let spoilt: [fn(&mut pb::BeginSessionResponse); 7] = [
        |message| message.session_token = Bytes::from_static(b"short"),
        |message| message.agreement = None,
        |message| message.service_time = None,
        |message| message.hub_replica_id = Bytes::new(),
        |message| message.agreement.as_mut().unwrap().batch_bytes_max = u64::MAX,
        |message| message.agreement.as_mut().unwrap().codec = 99,
        |message| message.upload_mark = Bytes::from_static(&[0; 16]),
    ];
    for spoil in spoilt {
        let mut message = whole();
        spoil(&mut message);
        refused(answers::begun(SessionId::fresh(), message));
    }
}

#[test]
fn unknown_events_are_passed_over_and_unknown_modes_stop() {
    assert!(answers::changes_event(pb::GetChangesResponse { event: None }).unwrap().is_none());
    assert!(answers::apply_event(pb::ApplyChangesResponse { event: None }).unwrap().is_none());
    let begin = pb::ChangesBegin { mode: 9, ..Default::default() };
    let event = pb::get_changes_response::Event::Begin(begin);
    let error = answers::changes_event(pb::GetChangesResponse { event: Some(event) }).unwrap_err();
    assert_eq!(error.reason(), ErrorReason::CapabilityRequired);
}

#[test]
fn a_batch_that_can_not_be_is_refused() {
    let info = pb::BatchInfo { batch_id: Bytes::from_static(b"no uuid"), ..Default::default() };
    let event = pb::get_changes_response::Event::Batch(info);
    refused(answers::changes_event(pb::GetChangesResponse { event: Some(event) }));
}

#[test]
fn chunks_must_follow_each_other() {
    let mut expected = 10;
    let chunk = |offset| pb::DownloadBatchResponse { offset, data: Bytes::from_static(b"abc") };
    assert!(answers::chunk(chunk(10), &mut expected).is_ok());
    assert_eq!(expected, 13);
    refused(answers::chunk(chunk(10), &mut expected));
}

#[test]
fn an_unknown_pending_is_some() {
    assert_eq!(answers::pending(77), Pending::Some);
    assert_eq!(answers::pending(1), Pending::None);
}
