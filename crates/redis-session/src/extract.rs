//! The extractors: `Session`, `Session<T>`, and both as an `Option`.

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use redis_session_core::State;

use crate::error::Error;
use crate::session::{Session, Status, Untyped};

impl<S, L> FromRequestParts<S> for Session<Untyped, L>
where
    S: Sync,
    L: 'static,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Self::from_extensions(&parts.extensions).await
    }
}

impl<S, T, L> FromRequestParts<S> for Session<T, L>
where
    S: Sync,
    T: State,
    L: 'static,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        Session::asked_for_as::<Self>(&parts.extensions).await?.view()
    }
}

/// `None` where the visitor has no living session. Errors reject all the same.
impl<S, L> OptionalFromRequestParts<S> for Session<Untyped, L>
where
    S: Sync,
    L: 'static,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Error> {
        let session = Self::from_extensions(&parts.extensions).await?;
        Ok((session.status() == Status::Alive).then_some(session))
    }
}

/// `None` where the visitor has no living session. Errors reject all the same.
impl<S, T, L> OptionalFromRequestParts<S> for Session<T, L>
where
    S: Sync,
    T: State,
    L: 'static,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Error> {
        let session: Session<Untyped, L> = Session::asked_for_as::<Self>(&parts.extensions).await?;
        if session.status() == Status::Alive { session.view().map(Some) } else { Ok(None) }
    }
}
