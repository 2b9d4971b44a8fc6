//! Where the log goes, and what of it.

use std::io;

use config::{Log, LogFormat};
use tracing_subscriber::{EnvFilter, fmt};

use super::Failure;

/// Whether the log can be set up so.
///
/// # Errors
///
/// The filter is not one.
pub(crate) fn check(log: &Log) -> Result<(), Failure> {
    filter(log).map(drop)
}

/// Sends what the process has to tell to standard error from here on, panics too.
///
/// # Errors
///
/// As [`check`].
pub(crate) fn start(log: &Log) -> Result<(), Failure> {
    let builder = fmt().with_env_filter(filter(log)?).with_writer(io::stderr);
    match log.format {
        LogFormat::Text => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            builder.with_ansi(colours).try_init()?;
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init()?,
    }
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(%panic, %backtrace, "a task panicked");
    }));
    Ok(())
}

fn filter(log: &Log) -> Result<EnvFilter, Failure> {
    EnvFilter::try_new(&log.filter)
        .map_err(|error| format!("log.filter: {:?} is not a filter: {error}", log.filter).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(filter: &str) -> Log {
        Log {
            filter: filter.to_owned(),
            ..Log::default()
        }
    }

    #[test]
    fn filters_are_levels_and_targets() {
        for good in ["info", "warn,rooms=debug", "off", "api::endpoint=trace"] {
            assert!(check(&log(good)).is_ok(), "{good}");
        }
        for bad in ["rooms=loud", "info,=,", "[unclosed"] {
            assert!(check(&log(bad)).is_err(), "{bad}");
        }
    }
}
