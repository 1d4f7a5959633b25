//! ListScopes: the scopes by name, in pages.

use syncline::error::Result;
use syncline::ids::ScopeName;
use syncline::pb;

use super::fields::Fields;
use crate::limits::{PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX};
use crate::{ScopeSummary, ServedHub};

pub(super) async fn serve(
    hub: &dyn ServedHub,
    message: &pb::ListScopesRequest,
) -> Result<pb::ListScopesResponse> {
    let (size, after) = check(message)?;
    let scopes = hub.scopes().await?;
    Ok(page(scopes, size, after.as_ref()))
}

fn check(message: &pb::ListScopesRequest) -> Result<(usize, Option<ScopeName>)> {
    let mut fields = Fields::new();
    let size = match usize::try_from(message.page_size) {
        Ok(0) => Some(PAGE_SIZE_DEFAULT),
        Ok(size) => Some(size.min(PAGE_SIZE_MAX)),
        Err(_) => {
            fields.wrong("page_size", format!("must not be negative, but is {}", message.page_size));
            None
        }
    };
    // A token is the last name of the page before: it stays right while scopes come and go.
    let after = match message.page_token.as_str() {
        "" => Some(None),
        token => match token.parse::<ScopeName>() {
            Ok(name) => Some(Some(name)),
            Err(_) => {
                fields.wrong("page_token", "is not a next_page_token of this service");
                None
            }
        },
    };
    fields.finish((size, after))
}

fn page(mut scopes: Vec<ScopeSummary>, size: usize, after: Option<&ScopeName>) -> pb::ListScopesResponse {
    scopes.sort_by(|left, right| left.name.cmp(&right.name));
    let mut left = scopes.into_iter().filter(|scope| after.is_none_or(|after| scope.name > *after));
    let page: Vec<_> = left.by_ref().take(size).collect();
    let next_page_token = match (left.next(), page.last()) {
        (Some(_), Some(last)) => last.name.to_string(),
        _ => String::new(),
    };
    let scopes = page.into_iter().map(|scope| pb::ScopeSummary {
        name: scope.name.into(),
        version: scope.version,
        tables: scope.tables,
    });
    pb::ListScopesResponse { scopes: scopes.collect(), next_page_token }
}
