//! One function for each `errcode`, with the status the specification gives it.

use std::time::Duration;

use http::StatusCode;
use ruma::{
    RoomVersionId,
    api::error::{
        BadStatusErrorData, ErrorKind, IncompatibleRoomVersionErrorData, LimitExceededErrorData,
        ResourceLimitExceededErrorData, RetryAfter, UnknownTokenErrorData,
        UserLimitExceededErrorData, WrongRoomKeysVersionErrorData,
    },
};

use crate::Error;

/// Functions that need no more than a message: name, status, kind, documentation.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $status:ident $kind:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(message: impl Into<String>) -> Error {
                Error::new(StatusCode::$status, ErrorKind::$kind, message)
            }
        )*
    };
}

kinds! {
    /// 400 `M_BAD_ALIAS`: an alias of `m.room.canonical_alias` does not point to the room.
    bad_alias: BAD_REQUEST BadAlias;
    /// 400 `M_BAD_JSON`: valid JSON, but a key is missing or has a wrong value.
    bad_json: BAD_REQUEST BadJson;
    /// 403 `M_BAD_STATE`: the change cannot be made from here, such as unbanning who is not banned.
    bad_state: FORBIDDEN BadState;
    /// 502 `M_CONNECTION_FAILED`: an application service cannot be reached.
    connection_failed: BAD_GATEWAY ConnectionFailed;
    /// 409 `M_CANNOT_OVERWRITE_MEDIA`: there is a file under this id already.
    cannot_overwrite_media: CONFLICT CannotOverwriteMedia;
    /// 403 `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`: the room of server notices cannot be left.
    cannot_leave_server_notice_room: FORBIDDEN CannotLeaveServerNoticeRoom;
    /// 400 `M_DUPLICATE_ANNOTATION`: the same reaction by the same user on the same event.
    duplicate_annotation: BAD_REQUEST DuplicateAnnotation;
    /// 400 `M_EXCLUSIVE`: the name belongs to an application service.
    exclusive: BAD_REQUEST Exclusive;
    /// 403 `M_FORBIDDEN`: who asks is known, and may not.
    forbidden: FORBIDDEN Forbidden;
    /// 403 `M_GUEST_ACCESS_FORBIDDEN`: guests may not.
    guest_access_forbidden: FORBIDDEN GuestAccessForbidden;
    /// 400 `M_INVALID_PARAM`: a parameter has a wrong value.
    invalid_param: BAD_REQUEST InvalidParam;
    /// 400 `M_INVALID_ROOM_STATE`: what `createRoom` asks for contradicts itself.
    invalid_room_state: BAD_REQUEST InvalidRoomState;
    /// 400 `M_INVALID_USERNAME`: not a name that a user ID can be made of.
    invalid_username: BAD_REQUEST InvalidUsername;
    /// 403 `M_INVITE_BLOCKED`: a rule keeps the invite from the invitee.
    invite_blocked: FORBIDDEN InviteBlocked;
    /// 400 `M_KEY_TOO_LARGE`: a profile key of more than 255 bytes.
    key_too_large: BAD_REQUEST KeyTooLarge;
    /// 405 `M_UNRECOGNIZED`: the path exists, but not with this method.
    method_not_allowed: METHOD_NOT_ALLOWED Unrecognized;
    /// 400 `M_MISSING_PARAM`: a required parameter is missing.
    missing_param: BAD_REQUEST MissingParam;
    /// 401 `M_MISSING_TOKEN`: an access token is required and none was sent.
    missing_token: UNAUTHORIZED MissingToken;
    /// 404 `M_NOT_FOUND`: there is no such thing, or who asks may not know of it.
    not_found: NOT_FOUND NotFound;
    /// 400 `M_NOT_JSON`: the body is not JSON.
    not_json: BAD_REQUEST NotJson;
    /// 504 `M_NOT_YET_UPLOADED`: the id was given out, the file has not come yet.
    not_yet_uploaded: GATEWAY_TIMEOUT NotYetUploaded;
    /// 400 `M_PROFILE_TOO_LARGE`: the profile would exceed 64 KiB.
    profile_too_large: BAD_REQUEST ProfileTooLarge;
    /// 400 `M_ROOM_IN_USE`: the alias that `createRoom` asks for is taken.
    room_in_use: BAD_REQUEST RoomInUse;
    /// 413 `M_TOO_LARGE`: the body, or the event made of it, is too large.
    too_large: PAYLOAD_TOO_LARGE TooLarge;
    /// 400 `M_UNABLE_TO_AUTHORISE_JOIN`: we know none of the rooms that would admit to this one.
    unable_to_authorize_join: BAD_REQUEST UnableToAuthorizeJoin;
    /// 400 `M_UNABLE_TO_GRANT_JOIN`: the user may join, but no member of ours may let them in.
    unable_to_grant_join: BAD_REQUEST UnableToGrantJoin;
    /// 401 `M_UNAUTHORIZED`: a server did not prove who it is.
    unauthorized: UNAUTHORIZED Unauthorized;
    /// 400 `M_UNKNOWN_DEVICE`: the device an application service acts for is not that user's.
    unknown_device: BAD_REQUEST UnknownDevice;
    /// 404 `M_UNRECOGNIZED`: no such endpoint.
    unrecognized: NOT_FOUND Unrecognized;
    /// 400 `M_URL_NOT_SET`: an application service is to be asked, and has no URL.
    url_not_set: BAD_REQUEST UrlNotSet;
    /// 400 `M_UNSUPPORTED_ROOM_VERSION`: `createRoom` asks for a version that we do not know.
    unsupported_room_version: BAD_REQUEST UnsupportedRoomVersion;
    /// 403 `M_USER_DEACTIVATED`: the account is no longer in use.
    user_deactivated: FORBIDDEN UserDeactivated;
    /// 400 `M_USER_IN_USE`: the user name is taken.
    user_in_use: BAD_REQUEST UserInUse;
    /// 401 `M_USER_LOCKED`: the account is locked. Says `soft_logout` by itself.
    user_locked: UNAUTHORIZED UserLocked;
    /// 403 `M_USER_SUSPENDED`: the account is suspended and may not do this.
    user_suspended: FORBIDDEN UserSuspended;
    /// 400 `M_WEAK_PASSWORD`: the password is not strong enough.
    weak_password: BAD_REQUEST WeakPassword;
}

/// 502 `M_BAD_STATUS`: an application service answered with `status` and this body.
pub fn bad_status(
    status: StatusCode,
    body: impl Into<String>,
    message: impl Into<String>,
) -> Error {
    let mut data = BadStatusErrorData::new();
    data.status = Some(status);
    data.body = Some(body.into());
    Error::new(StatusCode::BAD_GATEWAY, ErrorKind::BadStatus(data), message)
}

/// 400 `M_INCOMPATIBLE_ROOM_VERSION`: the room has a version that the joining server lacks.
pub fn incompatible_room_version(room_version: RoomVersionId, message: impl Into<String>) -> Error {
    let data = IncompatibleRoomVersionErrorData::new(room_version);
    Error::new(
        StatusCode::BAD_REQUEST,
        ErrorKind::IncompatibleRoomVersion(data),
        message,
    )
}

/// 429 `M_LIMIT_EXCEEDED`: too many requests; `retry_after` goes into the body and, rounded up to
/// seconds, into the `Retry-After` header.
pub fn limit_exceeded(retry_after: Option<Duration>, message: impl Into<String>) -> Error {
    let mut data = LimitExceededErrorData::new();
    data.retry_after = retry_after.map(RetryAfter::Delay);
    Error::new(
        StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::LimitExceeded(data),
        message,
    )
}

/// 403 `M_RESOURCE_LIMIT_EXCEEDED`: a limit of this server is reached; `admin_contact` is a URI.
pub fn resource_limit_exceeded(
    admin_contact: impl Into<String>,
    message: impl Into<String>,
) -> Error {
    let data = ResourceLimitExceededErrorData::new(admin_contact.into());
    Error::new(
        StatusCode::FORBIDDEN,
        ErrorKind::ResourceLimitExceeded(data),
        message,
    )
}

/// `M_UNKNOWN` with a status of one's own, for what no other `errcode` says.
pub fn unknown(status: StatusCode, message: impl Into<String>) -> Error {
    Error::new(status, ErrorKind::Unknown, message)
}

/// 401 `M_UNKNOWN_TOKEN`: no such access token. With `soft_logout` the client keeps its keys and
/// logs in again as the same device ([soft logout]).
///
/// [soft logout]: https://spec.matrix.org/v1.19/client-server-api/#soft-logout
pub fn unknown_token(soft_logout: bool, message: impl Into<String>) -> Error {
    let mut data = UnknownTokenErrorData::new();
    data.soft_logout = soft_logout;
    Error::new(
        StatusCode::UNAUTHORIZED,
        ErrorKind::UnknownToken(data),
        message,
    )
}

/// 403 `M_USER_LIMIT_EXCEEDED`: a limit of the account is reached; `info_uri` says more of it.
pub fn user_limit_exceeded(info_uri: impl Into<String>, message: impl Into<String>) -> Error {
    let data = UserLimitExceededErrorData::new(info_uri.into());
    Error::new(
        StatusCode::FORBIDDEN,
        ErrorKind::UserLimitExceeded(data),
        message,
    )
}

/// 403 `M_WRONG_ROOM_KEYS_VERSION`: the backup that the keys are for is not the current one.
pub fn wrong_room_keys_version(
    current_version: impl Into<String>,
    message: impl Into<String>,
) -> Error {
    let data = WrongRoomKeysVersionErrorData::new(current_version.into());
    Error::new(
        StatusCode::FORBIDDEN,
        ErrorKind::WrongRoomKeysVersion(data),
        message,
    )
}

/// An `errcode` that Ruma does not know, such as `M_INVALID_SIGNATURE`.
pub fn other(status: StatusCode, errcode: &str, message: impl Into<String>) -> Error {
    let kind = serde_json::from_value(serde_json::json!({ "errcode": errcode }));
    Error::new(status, kind.unwrap_or(ErrorKind::Unknown), message)
}

/// 400 `M_INVALID_SIGNATURE`: what was uploaded is not signed by whom it must be.
pub fn invalid_signature(message: impl Into<String>) -> Error {
    other(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE", message)
}
