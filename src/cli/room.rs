//! `chapar room`: what this server knows of a room.

use api::control::{Answer, Command, Explained, Named};
use clap::{Args, Subcommand};

use super::{Failure, Settings, operator, output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: RoomCommand,
}

#[derive(Debug, Subcommand)]
enum RoomCommand {
    /// Explains the state of a room at an event: what the event follows, between what a resolution had to choose,
    /// what it chose.
    State {
        /// The id of the event.
        #[arg(long, value_name = "EVENT")]
        at: String,
        /// Only state of this type, such as `m.room.member`; without it everything but members.
        #[arg(long = "type", value_name = "TYPE")]
        event_type: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(settings: &Settings, arguments: Arguments) -> Result<(), Failure> {
    let RoomCommand::State {
        at,
        event_type,
        json,
    } = arguments.command;
    let command = Command::ExplainState {
        event_id: at,
        event_type,
    };
    match operator::ask(settings, command)? {
        Answer::State(explained) if json => {
            output::line(format_args!("{}", serde_json::to_string(&explained)?))
        }
        Answer::State(explained) => tell(&explained),
        other => Err(format!("the server answered something else: {other:?}").into()),
    }
}

fn tell(explained: &Explained) -> Result<(), Failure> {
    let Explained {
        room_id,
        version,
        entries,
        resets,
        ..
    } = explained;
    output::line(format_args!("room    {room_id}, version {version}"))?;
    tell_event("event  ", &explained.event)?;
    for event in &explained.prev {
        tell_event("follows", event)?;
    }
    for event in &explained.auth {
        tell_event("allowed", event)?;
    }
    for one in &explained.differing {
        let chosen = one.chosen.as_deref().unwrap_or("nothing");
        output::line(format_args!(
            "differs {} [{}]: {chosen} of",
            one.event_type, one.state_key
        ))?;
        for (candidate, prev) in one.candidates.iter().zip(&explained.prev) {
            let candidate = candidate.as_deref().unwrap_or("nothing");
            output::line(format_args!("        {candidate} after {}", prev.event_id))?;
        }
    }
    match entries {
        Some(entries) => output::line(format_args!("state   {entries} entries, among them"))?,
        None => output::line(format_args!(
            "state   is not known: it is no event of the graph"
        ))?,
    }
    for entry in &explained.state {
        output::line(format_args!(
            "        {} [{}] {} by {}",
            entry.event_type, entry.state_key, entry.event_id, entry.sender
        ))?;
    }
    for end in &explained.ends {
        output::line(format_args!("the room ends with {end}"))?;
    }
    output::line(format_args!(
        "state that nobody contested was lost at {resets} events of this room"
    ))
}

fn tell_event(how: &str, event: &Named) -> Result<(), Failure> {
    let what = event.what.as_deref().unwrap_or("unknown");
    output::line(format_args!(
        "{how} {} {what}: {}",
        event.event_id, event.verdict
    ))
}
