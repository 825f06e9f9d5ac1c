//! The response header that lets a browser forget what the site has left in it.

use axum_core::response::{IntoResponseParts, ResponseParts};
use http::{HeaderName, HeaderValue};

/// `Clear-Site-Data`, for the answer to a logout: a part of a response, for who shares a computer with strangers.
///
/// ```
/// use axum::response::{IntoResponse, Redirect};
/// use redis_session::{ClearSiteData, Error, Session};
///
/// async fn log_out(session: Session) -> Result<impl IntoResponse, Error> {
///     session.log_out().await?;
///     Ok((ClearSiteData::AllButCookies, Redirect::to("/")))
/// }
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let session = Session::detached(std::collections::BTreeMap::<String, u8>::new()).await?;
/// let response = log_out(session).await?.into_response();
/// assert_eq!(response.headers()["clear-site-data"], r#""cache", "storage""#);
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
///
/// Browsers heed it over HTTPS only. The session needs none of
/// it: a logout ends it on the server, and takes its cookie away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClearSiteData {
    /// `"cache", "cookies", "storage"`. **All cookies** of the site and its subdomains go: those of other applications there,
    /// the language, and maybe the new session of a "goodbye" in the same answer.
    Everything,
    /// `"cache", "storage"`: pages that the back button would show, and what scripts have kept.
    AllButCookies,
}

impl From<ClearSiteData> for HeaderValue {
    fn from(what: ClearSiteData) -> Self {
        Self::from_static(match what {
            ClearSiteData::Everything => r#""cache", "cookies", "storage""#,
            ClearSiteData::AllButCookies => r#""cache", "storage""#,
        })
    }
}

impl IntoResponseParts for ClearSiteData {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Self::Error> {
        response.headers_mut().insert(HeaderName::from_static("clear-site-data"), self.into());
        Ok(response)
    }
}
