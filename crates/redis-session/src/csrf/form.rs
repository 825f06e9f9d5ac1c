//! The token in the body of a form, which the handler gets as it came.

use std::error::Error as StdError;
use std::future::ready;

use axum_core::body::Body;
use axum_core::extract::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};

use crate::events::CsrfRefusal;

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// Reads a form to its end, and takes note of the first field of this name. `None`: it has none, or the body is no form.
///
/// # Errors
/// The form has more bytes than `limit`, or does not come to its end.
pub(super) async fn token_in(
    request: Request,
    field: &str,
    limit: usize,
) -> Result<(Request, Option<String>), CsrfRefusal> {
    if !is_form(&request) {
        return Ok((request, None));
    }
    let (head, body) = request.into_parts();
    let read = Limited::new(body, limit).collect().await.map_err(|error| refusal(&*error))?;
    let trailers = read.trailers().cloned();
    let bytes = read.to_bytes();
    let token = form_urlencoded::parse(&bytes).find(|(name, _)| name == field).map(|(_, value)| value.into_owned());
    let body = match trailers {
        None => Body::from(bytes),
        Some(trailers) => Body::new(Full::new(bytes).with_trailers(ready(Some(Ok(trailers))))),
    };
    Ok((Request::from_parts(head, body), token))
}

fn is_form(request: &Request) -> bool {
    let kind = request.headers().get(CONTENT_TYPE).map_or(b"".as_slice(), |value| value.as_bytes());
    let essence = kind.split(|b| *b == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(FORM)
}

/// Also a limit of the application's, further out.
fn refusal(error: &(dyn StdError + Send + Sync + 'static)) -> CsrfRefusal {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return CsrfRefusal::FormTooLarge;
        }
        cause = error.source();
    }
    CsrfRefusal::NoToken
}
