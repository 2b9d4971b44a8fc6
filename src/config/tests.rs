//! Layers, messages, and the example.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{net::SocketAddr, path::Path, time::Duration};

use ruma::RoomVersionId;

use super::*;

/// Loads and returns the problems as text.
fn complaint(text: &str) -> String {
    Config::from_toml(text).unwrap_err().to_string()
}

fn with_variables(variables: &[(&str, &str)]) -> Result<Config, Problems> {
    Config::load(
        &Sources::default().environment(
            variables
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        ),
    )
}

#[test]
fn nothing_set_is_the_default() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.server.name, None);
    assert_eq!(config.server.default_room_version, RoomVersionId::V12);
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8008");
    assert_eq!(config.listeners[0].apis, Api::ALL);
    assert!(config.storage.sync);
    assert!(!config.registration.enabled);
    assert!(config.registration.require_token);
    assert_eq!(config.limits.max_request_body.get(), 1 << 20);
}

#[test]
fn the_example_is_the_default_commented_or_not() {
    let example = Config::example();
    assert_eq!(Config::from_toml(&example).unwrap(), Config::default());
    let uncommented: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(Config::from_toml(&uncommented).unwrap(), Config::default());
    for section in Config::sections() {
        for setting in section.settings {
            let line = format!("\n{} = {}\n", setting.name, setting.default);
            assert!(uncommented.contains(&line), "{line}");
            assert!(
                !setting.doc.is_empty(),
                "{}.{} has no doc",
                section.key,
                setting.name
            );
        }
    }
}

#[test]
fn a_file_is_read_over_the_defaults() {
    let config = Config::from_toml(
        r#"
        [server]
        name = "example.org"
        default_room_version = 11
        shutdown_grace = "2 min"
        [[listeners]]
        address = "[::1]:80"
        apis = ["federation"]
        [[listeners]]
        address = "/run/chapar.sock"
        [storage]
        block_cache = 1048576
        sync = false
        [log]
        format = "json"
        "#,
    )
    .unwrap();
    assert_eq!(config.server.name.unwrap(), "example.org");
    assert_eq!(config.server.default_room_version, RoomVersionId::V11);
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(120));
    let first: SocketAddr = "[::1]:80".parse().unwrap();
    assert_eq!(config.listeners[0].address, Address::Tcp(first));
    assert_eq!(config.listeners[0].apis, [Api::Federation]);
    assert_eq!(
        config.listeners[1].address,
        Address::Unix("/run/chapar.sock".into())
    );
    assert_eq!(config.storage.block_cache, ByteCount::mib(1));
    assert!(!config.storage.sync);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.storage.data, Path::new("data"));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        complaint("[server]\nname = \"a.b\"\ndefault_room_vresion = \"11\"\n"),
        "<text>:3: unknown key `server.default_room_vresion`; the nearest known one is \
         `server.default_room_version`"
    );
    assert_eq!(
        complaint("\n[sever]\nname = \"a.b\"\n"),
        "<text>:2: unknown key `sever`; the nearest known one is `server`"
    );
    assert_eq!(
        complaint("[server]\nmax_request_body = 1"),
        "<text>:2: unknown key `server.max_request_body`; the nearest known one is \
         `limits.max_request_body`"
    );
    assert_eq!(
        complaint("max_request_body = 1"),
        "<text>:1: unknown key `max_request_body`; the nearest known one is \
         `limits.max_request_body`"
    );
    assert_eq!(
        complaint("[[listeners]]\n[[listeners]]\nadress = \"1.2.3.4:5\""),
        "<text>:3: unknown key `listeners.adress`; the nearest known one is `listeners.address`"
    );
    assert_eq!(
        complaint("server.nam = 1"),
        "<text>:1: unknown key `server.nam`; the nearest known one is `server.name`"
    );
}

#[test]
fn wrong_values_are_all_named() {
    let complaint = complaint(
        "[server]\nname = 5\ndefault_room_version = \"13\"\nshutdown_grace = 5\n\
         [storage]\nblock_cache = \"1 XB\"\nsync = \"yes\"\ndata = \"\"\n\
         [[listeners]]\naddress = \"localhost\"\napis = [\"clients\"]\n\
         [log]\nformat = \"xml\"\nfilter = 1.5",
    );
    let expected = [
        "2: server.name must be a server name like \"example.org\", or empty for none, found 5",
        "3: server.default_room_version must be a room version from \"1\" to \"12\", found \"13\"",
        "4: server.shutdown_grace must be a duration like \"500 ms\", \"30 s\", \"5 min\", \
         \"12 h\", \"7 d\", found \"5\" without a unit",
        "6: storage.block_cache must be a number of bytes like \"64 MiB\", found \"1 XB\"",
        "7: storage.sync must be true or false, found \"yes\"",
        "8: storage.data must be a path, found none",
        "10: listeners.address must be an IP address with a port, or a path with a slash, \
         found \"localhost\"",
        "11: listeners.apis must be a list, each item one of \"client\", \"federation\", \
         \"admin\", \"health\", found \"clients\"",
        "13: log.format must be one of \"text\", \"json\", found \"xml\"",
        "14: log.filter must be text, found 1.5",
    ];
    let expected: Vec<String> = expected.map(|line| format!("<text>:{line}")).into();
    assert_eq!(complaint.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_not_toml_is_an_error_with_its_line() {
    assert!(complaint("[server]\nname = \n").starts_with("<text>:2: "));
    assert!(complaint("[server]\nname = \"a\"\nname = \"b\"\n").starts_with("<text>:3: "));
    assert_eq!(
        complaint("server = 1"),
        "<text>:1: server must be a table, found 1"
    );
    assert_eq!(
        complaint("listeners = 1"),
        "<text>:1: listeners must be a list of tables, found 1"
    );
    let missing = Config::load(&Sources::default().file("/nonexistent/chapar.toml")).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("/nonexistent/chapar.toml: ")
    );
}

#[test]
fn settings_that_contradict_each_other_are_errors() {
    assert!(complaint("listeners = []").contains("must not be empty"));
    assert!(complaint("[[listeners]]\n[[listeners]]").contains("two listeners"));
    assert!(complaint("[[listeners]]\ntls_key = \"a\"").contains("both"));
    assert!(complaint("[[listeners]]\napis = []").contains("apis must not be empty"));
    assert!(complaint("[storage]\nblock_cache = \"1 GiB\"").contains("by at least 16 MiB"));
    assert!(complaint("[limits]\nmax_request_body = \"1 KiB\"").contains("at least 128 KiB"));
    assert!(complaint("[limits]\nmax_devices_of_user = 0").contains("at least 1"));
    Config::from_toml("[[listeners]]\naddress=\"0.0.0.0:0\"\n[[listeners]]\naddress=\"0.0.0.0:0\"")
        .unwrap();
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let file = "[server]\nname = \"file.org\"\n[log]\nfilter = \"debug\"\n\
                [[listeners]]\naddress = \"1.1.1.1:1\"\n[[listeners]]\naddress = \"2.2.2.2:2\"";
    let sources = Sources::default()
        .text("<text>", file)
        .environment([("CHAPAR_SERVER__NAME".into(), "env.org".into())]);
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.server.name.unwrap(), "env.org");
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.listeners.len(), 2);
    let sources = sources
        .argument("--server-name", &["server", "name"], "arg.org")
        .argument("--listen", &["listeners"], "3.3.3.3:3");
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.server.name.unwrap(), "arg.org");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].address.to_string(), "3.3.3.3:3");
    let wrong = sources.argument("--listen", &["listeners"], "nowhere");
    assert_eq!(
        Config::load(&wrong).unwrap_err().to_string(),
        "argument --listen: listeners.address must be an IP address with a port, or a path with \
         a slash, found \"nowhere\""
    );
}

#[test]
fn variables_are_text_or_toml() {
    let config = with_variables(&[
        ("CHAPAR_STORAGE__SYNC", "false"),
        ("CHAPAR_STORAGE__BLOCK_CACHE", "32 MiB"),
        ("CHAPAR_SERVER__DEFAULT_ROOM_VERSION", "10"),
        ("CHAPAR_LOG__FILTER", "true"),
        ("CHAPAR_LISTENERS__0__ADDRESS", "0.0.0.0:1"),
        ("CHAPAR_LISTENERS__0__APIS", "client, health"),
        ("CHAPAR_LISTENERS__1__ADDRESS", "0.0.0.0:2"),
        ("CHAPAR_LISTENERS__1__APIS", "[\"federation\"]"),
    ])
    .unwrap();
    assert!(!config.storage.sync);
    assert_eq!(config.storage.block_cache, ByteCount::mib(32));
    assert_eq!(config.server.default_room_version, RoomVersionId::V10);
    assert_eq!(config.log.filter, "true");
    assert_eq!(config.listeners[0].apis, [Api::Client, Api::Health]);
    assert_eq!(config.listeners[1].apis, [Api::Federation]);
    assert_eq!(config.listeners[1].address.to_string(), "0.0.0.0:2");
    let whole = with_variables(&[("CHAPAR_LISTENERS", "[{ address = \"0.0.0.0:7\" }]")]).unwrap();
    assert_eq!(whole.listeners[0].address.to_string(), "0.0.0.0:7");
}

#[test]
fn variables_of_ours_that_are_wrong_are_errors_and_others_are_not_ours() {
    let complaint = |name: &str, value: &str| with_variables(&[(name, value)]).unwrap_err();
    assert_eq!(
        complaint("CHAPAR_SERVER__NMAE", "a.b").to_string(),
        "environment variable CHAPAR_SERVER__NMAE: unknown key `server.nmae`; the nearest known \
         one is `server.name`"
    );
    assert_eq!(
        complaint("CHAPAR_SERVER_NAME", "a.b").to_string(),
        "environment variable CHAPAR_SERVER_NAME: not a setting; did you mean \
         CHAPAR_SERVER__NAME?"
    );
    assert_eq!(
        complaint("CHAPAR_LISTENERS", "[{ adress = \"0.0.0.0:7\" }]").to_string(),
        "environment variable CHAPAR_LISTENERS: unknown key `listeners.adress`; the nearest known \
         one is `listeners.address`"
    );
    assert!(
        complaint("CHAPAR_LISTENERS__3__ADDRESS", "0.0.0.0:7")
            .to_string()
            .contains("CHAPAR_LISTENERS__3__ADDRESS")
    );
    assert!(
        complaint("CHAPAR_SERVER__NAME__X", "1")
            .to_string()
            .contains("server.name")
    );
    assert!(
        complaint("CHAPAR_LISTENERS", "7")
            .to_string()
            .contains("list of tables")
    );
    // Orchestrators announce a service called "chapar" to their containers like this.
    let foreign = with_variables(&[
        ("CHAPAR_SERVICE_HOST", "10.0.0.1"),
        ("CHAPAR_PORT", "tcp://10.0.0.1:8008"),
        ("CHAPAR_CONFIG", "/etc/chapar.toml"),
        ("PATH", "/bin"),
    ]);
    assert_eq!(foreign.unwrap(), Config::default());
}

#[test]
fn sizes_and_durations_have_units() {
    let read = |text: &str| {
        let text = format!("[storage]\nmemory_budget = \"20 GiB\"\nblock_cache = {text}");
        Config::from_toml(&text).map(|config| config.storage.block_cache.get())
    };
    assert_eq!(read("\"1GiB\"").unwrap(), 1 << 30);
    assert_eq!(read("\"2 kb\"").unwrap(), 2_000);
    assert_eq!(read("\"7\"").unwrap(), 7);
    assert_eq!(read("7").unwrap(), 7);
    for wrong in [
        "-1",
        "\"\"",
        "\"GiB\"",
        "\"1.5 GiB\"",
        "\"99999999999 TiB\"",
        "[]",
        "\"1 s\"",
    ] {
        read(wrong).expect_err(wrong);
    }
    assert_eq!(ByteCount::new(1536).to_string(), "1536 B");
    assert_eq!(ByteCount::kib(1536).to_string(), "1536 KiB");
    assert_eq!(ByteCount::new(0).to_string(), "0 B");
    for (text, milliseconds) in [
        ("250ms", 250),
        ("1 s", 1_000),
        ("2m", 120_000),
        ("2 min", 120_000),
        ("3h", 10_800_000),
    ] {
        let text = format!("server.shutdown_grace = \"{text}\"");
        let config = Config::from_toml(&text).unwrap();
        assert_eq!(
            config.server.shutdown_grace,
            Duration::from_millis(milliseconds)
        );
    }
}

#[test]
fn the_cost_of_passwords_stays_within_what_argon2_takes() {
    let config = Config::from_toml("[passwords]\nmemory = \"64 MiB\"\npasses = 3").unwrap();
    assert_eq!(config.passwords.memory, ByteCount::mib(64));
    assert_eq!(config.passwords.passes, 3);
    assert!(complaint("[passwords]\nmemory = \"1 KiB\"").contains("passwords.memory"));
    assert!(complaint("[passwords]\nlanes = 0").contains("passwords.lanes"));
    assert!(complaint("[passwords]\npasses = -1").contains("passes"));
    assert!(complaint("[passwords]\npasses = \"many\"").contains("a whole number"));
}

#[test]
fn secrets_are_read_and_never_shown() {
    let text = "[registration]\nshared_secret = \"open sesame\"\n\
        [logins]\njwt_key = \"0123456789abcdef\"\njwt_algorithm = \"ES256\"";
    let config = Config::from_toml(text).unwrap();
    let secret = config.registration.shared_secret.clone().unwrap();
    assert_eq!(secret.reveal(), "open sesame");
    assert_eq!(config.logins.jwt_algorithm, JwtAlgorithm::Es256);
    assert!(!format!("{config:?}").contains("sesame"));
    assert!(!complaint("[registration]\nshared_secret = 12345678").contains("12345678"));
    let short = complaint("[logins]\njwt_key = \"hunter2\"");
    assert!(
        short.contains("logins.jwt_key") && !short.contains("hunter2"),
        "{short}"
    );
    assert!(complaint("[logins]\naccess_token_lifetime = \"1 s\"").contains("10 s"));
}
