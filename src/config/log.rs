//! Section `log`.

section! {
    /// What is written to the log, which goes to standard error.
    pub struct Log {
        /// The least level that is written: "error", "warn", "info", "debug" or "trace"; with
        /// `target=level` and commas also by part: "info,rooms=debug".
        filter: String = "info".to_owned(),

        /// For people or for programs.
        format: LogFormat = LogFormat::Text,
    }
}

choice! {
    /// How a log line is written.
    pub enum LogFormat {
        /// A line for people.
        Text = "text",
        /// A JSON object on a line.
        Json = "json",
    }
}
