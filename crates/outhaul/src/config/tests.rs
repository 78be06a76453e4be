use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use outhaul_repository::Declarations;

use super::settings::ALL;
use super::*;

fn sources(file: &str, environment: &[(&str, &str)], flags: &[(&'static str, &[&str])]) -> Sources {
    let path = PathBuf::from("outhaul.toml");
    let keys: Vec<&'static str> = ALL.iter().map(|setting| setting.key).collect();
    let declarations = Declarations::parse(&path, file, &keys);
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    let flags: BTreeMap<&'static str, Vec<String>> = flags
        .iter()
        .map(|(key, values)| (*key, values.iter().map(|&value| value.to_owned()).collect()))
        .collect();
    Sources::new(
        Some((path, declarations)),
        environment.collect::<Vec<(OsString, OsString)>>(),
        flags,
    )
}

fn problems(file: &str, environment: &[(&str, &str)]) -> Vec<String> {
    match Config::resolve(sources(file, environment, &[])) {
        Ok(config) => panic!("no problem in {file} {environment:?}: {config:?}"),
        Err(problems) => problems.iter().map(Problem::to_string).collect(),
    }
}

#[test]
fn the_stronger_source_wins_and_says_so() {
    let file = "\n[listen]\nhttp = '127.0.0.1:1'\ngrpc = 'off'\n[log]\nlevel = 'warn'\n";
    let environment = [("OUTHAUL_HTTP", "127.0.0.1:2"), ("OUTHAUL_LOG_LEVEL", "debug")];
    let flags: [(_, &[&str]); 1] = [("listen.http", &["127.0.0.1:3"])];
    let config = Config::resolve(sources(file, &environment, &flags)).unwrap();
    assert_eq!(config.http.value, Listen::On(([127, 0, 0, 1], 3).into()));
    assert_eq!(config.http.origin.to_string(), "flag --http");
    assert_eq!(config.log_level.value, "debug");
    assert_eq!(config.log_level.origin.to_string(), "environment OUTHAUL_LOG_LEVEL");
    assert_eq!(config.grpc.value, Listen::Off);
    assert_eq!(config.grpc.origin.to_string(), "outhaul.toml:4");
    assert_eq!(config.engine.origin, Origin::Default);
}

#[test]
fn every_setting_can_be_set_everywhere() {
    let file = r#"
        models = ["a", "b"]
        engine = "embedded"
        onnxruntime = "/lib/x.so"
        state = "postgres://me@db/outhaul"
        default_model = "iris"
        routes.iris.targets = [{ to = "iris@1", weight = 9 }, { to = "iris@2" }]
        callers.billing = { weight = 2, rate = 10.5, priority = "background" }
        [repository]
        mode = "explicit"
        load = ["iris", "reviews"]
        poll_interval = "5s"
        settle = "2s"
        memory_budget = "4GiB"
        min_residency = "1m"
        cache_dir = "/var/cache/outhaul"
        cache_capacity = "20GiB"
        [listen]
        http = 80
        grpc = "localhost:81"
        [limits]
        max_body_bytes = "1MiB"
        max_head_bytes = "8KiB"
        max_tensor_bytes = "2MiB"
        max_rows = 9
        max_connections = 7
        head_timeout = "100ms"
        body_timeout = "2s"
        idle_timeout = "1m"
        request_timeout = "3s"
        drain_timeout = "1s"
        caller_header = "X-Team"
        [cache]
        redis = "redis://127.0.0.1:6379"
        [vertex]
        predict_route = "/predict"
        health_route = "/health"
        [sagemaker]
        models_dir = "/opt/ml/models"
        [log]
        format = "json"
        level = "warn,outhaul=debug"
        requests = true
        [trace]
        otlp_endpoint = "http://127.0.0.1:4317"
    "#;
    let from_file = Config::resolve(sources(file, &[], &[])).unwrap();
    let separator = if cfg!(windows) { ";" } else { ":" };
    let environment = [
        ("OUTHAUL_MODELS", &*format!("a{separator}b")),
        ("OUTHAUL_ENGINE", "embedded"),
        ("OUTHAUL_ONNXRUNTIME", "/lib/x.so"),
        ("OUTHAUL_STATE", "postgres://me@db/outhaul"),
        ("OUTHAUL_DEFAULT_MODEL", "iris"),
        (
            "OUTHAUL_ROUTES",
            r#"{"iris": {"targets": [{"to": "iris@1", "weight": 9}, {"to": "iris@2"}]}}"#,
        ),
        (
            "OUTHAUL_CALLERS",
            r#"{"billing": {"weight": 2, "rate": 10.5, "priority": "background"}}"#,
        ),
        ("OUTHAUL_CALLER_HEADER", "x-team"),
        ("OUTHAUL_CACHE_REDIS", "redis://127.0.0.1:6379"),
        ("OUTHAUL_MODE", "explicit"),
        ("OUTHAUL_LOAD_MODELS", "iris, reviews"),
        ("OUTHAUL_POLL_INTERVAL", "5000ms"),
        ("OUTHAUL_SETTLE", "2000ms"),
        ("OUTHAUL_MEMORY_BUDGET", "4294967296"),
        ("OUTHAUL_MIN_RESIDENCY", "60s"),
        ("OUTHAUL_CACHE_DIR", "/var/cache/outhaul"),
        ("OUTHAUL_CACHE_CAPACITY", "20480MiB"),
        ("OUTHAUL_HTTP", "80"),
        ("OUTHAUL_GRPC", "127.0.0.1:81"),
        ("OUTHAUL_MAX_BODY_BYTES", "1048576"),
        ("OUTHAUL_MAX_HEAD_BYTES", "8192"),
        ("OUTHAUL_MAX_TENSOR_BYTES", "2048KiB"),
        ("OUTHAUL_MAX_ROWS", "9"),
        ("OUTHAUL_MAX_CONNECTIONS", "7"),
        ("OUTHAUL_HEAD_TIMEOUT", "100ms"),
        ("OUTHAUL_BODY_TIMEOUT", "2s"),
        ("OUTHAUL_IDLE_TIMEOUT", "60s"),
        ("OUTHAUL_REQUEST_TIMEOUT", "3000ms"),
        ("OUTHAUL_DRAIN_TIMEOUT", "1000ms"),
        ("OUTHAUL_VERTEX_PREDICT_ROUTE", "/predict"),
        ("OUTHAUL_VERTEX_HEALTH_ROUTE", "/health"),
        ("OUTHAUL_SAGEMAKER_MODELS_DIR", "/opt/ml/models"),
        ("OUTHAUL_LOG_FORMAT", "json"),
        ("OUTHAUL_LOG_LEVEL", "warn,outhaul=debug"),
        ("OUTHAUL_LOG_REQUESTS", "true"),
        ("OUTHAUL_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
    ];
    let from_environment = Config::resolve(sources("", &environment, &[])).unwrap();
    let flags: Vec<(&'static str, Vec<&str>)> = ALL
        .iter()
        .map(|setting| {
            let value = environment.iter().find(|(name, _)| *name == setting.variable).unwrap().1;
            (setting.key, if setting.key == "models" { vec!["a", "b"] } else { vec![value] })
        })
        .collect();
    let flags: Vec<(&'static str, &[&str])> =
        flags.iter().map(|(key, values)| (*key, values.as_slice())).collect();
    let from_flags = Config::resolve(sources("", &[], &flags)).unwrap();
    let values = |config: &Config| -> Vec<Option<Json>> {
        config.rows().into_iter().map(|(_, value, _)| value).collect()
    };
    assert_eq!(values(&from_file), values(&from_environment));
    assert_eq!(values(&from_file), values(&from_flags));
    let origins = |config: &Config, expected: fn(&Origin) -> bool| {
        config.rows().iter().all(|(_, _, origin)| expected(origin))
    };
    assert!(origins(&from_file, |origin| matches!(origin, Origin::File { .. })));
    assert!(origins(&from_environment, |origin| matches!(origin, Origin::Environment(_))));
    assert!(origins(&from_flags, |origin| matches!(origin, Origin::Flag(_))));
    let keys: Vec<_> = from_file.rows().iter().map(|(key, ..)| *key).collect();
    assert_eq!(keys, ALL.map(|setting| setting.key), "every setting is shown");
}

#[test]
fn every_rule_refuses_what_breaks_it() {
    struct Case(&'static str, &'static str, &'static [&'static str]);
    let cases = [
        Case("models", "must be one path or several", &["[]", "3", "[1]", "''"]),
        Case("engine", "must be auto, onnxruntime or embedded", &["'python'", "1", "''"]),
        Case("onnxruntime", "must be a path", &["''", "true"]),
        Case("state", "must be the URL of a store", &["''", "1", "true"]),
        Case("default_model", "must be a model's name", &["'a/b'", "1", "''"]),
        Case(
            "routes",
            "does not describe routes",
            &["{ iris = 1 }", "{ iris = { targets = 'a' } }", "{ iris = { target = [] } }", "[1]"],
        ),
        Case("callers", "must be above 0", &["{ a = { weight = 0 } }", "{ a = { rate = -1.0 } }"]),
        Case("repository.mode", "must be watch, poll, explicit or once", &["'watched'", "1"]),
        Case("repository.load", "must be names of models", &["'a/b'", "1", "['..']"]),
        Case("repository.poll_interval", "must be a duration from 100ms", &["'1ms'", "30"]),
        Case("repository.settle", "must be a duration of at most 24h", &["'25h'", "1"]),
        Case(
            "repository.memory_budget",
            "must be a size of at least 1MiB",
            &["0", "'1kB'", "'80%'"],
        ),
        Case("repository.min_residency", "must be a duration of at most 24h", &["'25h'"]),
        Case("repository.cache_dir", "must be a folder", &["''", "1"]),
        Case("repository.cache_capacity", "must be a size of at least 1MiB", &["1"]),
        Case(
            "listen.http",
            "must be an IP address and a port",
            &["'example.org:80'", "70000", "-1", "'127.0.0.1'", "'localhost:x'", "true"],
        ),
        Case("listen.grpc", "must be an IP address and a port", &["':8081'"]),
        Case(
            "limits.max_body_bytes",
            "must be a size of at least 1KiB",
            &["0", "'64'", "'64 megabytes'", "'99999999999999999999GiB'", "-1", "1.5"],
        ),
        Case(
            "limits.max_head_bytes",
            "must be a size from 8KiB to 16MiB",
            &["8191", "'17MiB'", "'64'", "-1"],
        ),
        Case("limits.max_tensor_bytes", "must be a size of at least 1KiB", &["0", "'none'"]),
        Case("limits.max_rows", "must be a whole number from 1", &["0", "'many'", "1.5"]),
        Case("limits.max_connections", "must be a whole number from 1", &["0", "'many'"]),
        Case("limits.head_timeout", "must be a duration from 1ms to 24h", &["10", "'0s'"]),
        Case("limits.body_timeout", "must be a duration from 1ms to 24h", &["'25h'"]),
        Case("limits.idle_timeout", "must be a duration from 1ms to 24h", &["'1us'"]),
        Case("limits.request_timeout", "must be a duration from 1ms to 24h", &["'0s'", "''"]),
        Case("limits.drain_timeout", "must be a duration of at most 1h", &["30", "'2h'"]),
        Case("limits.caller_header", "must be the name of a header", &["'a b'", "''", "1"]),
        Case("cache.redis", "must be a URL of Redis", &["'localhost'", "6379"]),
        Case("vertex.predict_route", "must be a path that begins", &["'predict'", "'/'", "1"]),
        Case("vertex.health_route", "must be a path that begins", &["'/a?b'", "''"]),
        Case("sagemaker.models_dir", "must be a whole path", &["'models'", "''", "1"]),
        Case("log.format", "must be text or json", &["'xml'", "1"]),
        Case("log.level", "must be off, error, warn, info", &["'loud'", "'a=b'", "''", "1"]),
        Case("log.requests", "must be true or false", &["'yes'", "1", "'true'"]),
        Case(
            "trace.otlp_endpoint",
            "must be a URL without TLS",
            &["'127.0.0.1:4317'", "'http://'", "'https://collector:4317'", "''"],
        ),
    ];
    for Case(key, rule, values) in &cases {
        for value in *values {
            let problems = problems(&format!("{key} = {value}"), &[]);
            assert_eq!(problems.len(), 1, "{key} = {value}: {problems:?}");
            assert!(problems[0].starts_with(&format!("outhaul.toml:1: {key} = ")), "{problems:?}");
            assert!(problems[0].contains(rule), "{key} = {value}: {problems:?}");
        }
    }
    let keys: Vec<_> = cases.iter().map(|case| case.0).collect();
    assert_eq!(keys, ALL.map(|setting| setting.key), "each setting has its case");
}

#[test]
fn a_route_that_cannot_be_is_told() {
    for (value, rule) in [
        ("{ iris = { targets = [] } }", "of 'iris' is wrong: a route needs at least one target"),
        ("'iris'", "is no JSON"),
        ("{ iris = { targets = [{ to = 'iris@' }] } }", "'iris@' names no model"),
    ] {
        let problems = problems(&format!("routes = {value}"), &[]);
        assert!(problems[0].contains(rule), "{value}: {problems:?}");
    }
}

#[test]
fn places_in_the_environment_may_be_urls() {
    let environment = [("OUTHAUL_MODELS", "s3://bucket/models, http://host:9000/more")];
    let config = Config::resolve(sources("", &environment, &[])).unwrap();
    let expected = ["s3://bucket/models", "http://host:9000/more"].map(PathBuf::from);
    assert_eq!(config.models.value, expected);
}

#[test]
fn a_platform_tells_what_nobody_else_does() {
    let file = "models = ['baked-in']\n[listen]\nhttp = 80\n";
    let environment = [
        ("AIP_HTTP_PORT", "8085"),
        ("SAGEMAKER_BIND_TO_PORT", "8086"),
        ("AIP_STORAGE_URI", "gs://bucket/model"),
        ("AIP_PREDICT_ROUTE", "/predict"),
        ("AIP_HEALTH_ROUTE", ""),
        ("SAGEMAKER_MULTI_MODEL", "false"),
    ];
    let config = Config::resolve(sources(file, &environment, &[])).unwrap();
    assert_eq!(config.http.value, Listen::On(([0, 0, 0, 0], 8085).into()));
    assert_eq!(config.http.origin.to_string(), "environment AIP_HTTP_PORT");
    assert_eq!(config.models.value, [PathBuf::from("gs://bucket/model")]);
    assert_eq!(config.vertex_predict_route.value.as_deref(), Some("/predict"));
    assert_eq!(config.vertex_health_route.value, None);
    assert_eq!(config.sagemaker_models_dir.value, None);
    let own = [("AIP_HTTP_PORT", "8085"), ("OUTHAUL_HTTP", "127.0.0.1:9")];
    let config = Config::resolve(sources(file, &own, &[])).unwrap();
    assert_eq!(config.http.value, Listen::On(([127, 0, 0, 1], 9).into()));
    let many = [("SAGEMAKER_MULTI_MODEL", "true")];
    let config = Config::resolve(sources(file, &many, &[])).unwrap();
    assert_eq!(config.sagemaker_models_dir.value, Some(PathBuf::from("/opt/ml/models")));
    assert_eq!(
        problems(file, &[("AIP_HTTP_PORT", "http")]),
        [
            "environment variable AIP_HTTP_PORT: \"0.0.0.0:http\": must be an IP address and a port; \
          write 127.0.0.1:8080, a port alone for this machine only, or off"
        ]
    );
}

#[test]
fn problems_of_all_sources_come_at_once() {
    let file = "lissten = 1\n[listen]\nhttp = 'x'\n[logs]\nlevel = 'info'\n";
    let environment =
        [("OUTHAUL_HTTP", "y"), ("OUTHAUL_GRPC", "127.0.0.1:8080"), ("OUTHAUL_ENGINE", "embeded")];
    let address = "must be an IP address and a port; write 127.0.0.1:8080, a port alone for this \
                   machine only, or off";
    assert_eq!(
        problems(file, &environment),
        [
            "outhaul.toml:1: lissten = 1: unknown key; the keys are models, engine, onnxruntime, \
             state, default_model, routes, callers, repository.mode, repository.load, repository.poll_interval, \
             repository.settle, repository.memory_budget, repository.min_residency, \
             repository.cache_dir, repository.cache_capacity, listen.http, listen.grpc, limits.max_body_bytes, limits.max_head_bytes, \
             limits.max_tensor_bytes, limits.max_rows, limits.max_connections, limits.head_timeout, \
             limits.body_timeout, limits.idle_timeout, limits.request_timeout, \
             limits.drain_timeout, limits.caller_header, cache.redis, vertex.predict_route, vertex.health_route, sagemaker.models_dir, log.format, log.level, log.requests, trace.otlp_endpoint"
                .to_owned(),
            format!("outhaul.toml:3: listen.http = \"x\": {address}"),
            "outhaul.toml:4: logs: unknown key; did you mean [log]?".to_owned(),
            "environment variable OUTHAUL_ENGINE: embeded: must be auto, onnxruntime or embedded; \
             did you mean embedded?"
                .to_owned(),
            format!("environment variable OUTHAUL_HTTP: y: {address}"),
            "listen.grpc (environment OUTHAUL_GRPC): listen.http is 127.0.0.1:8080 too; give each \
             its own port"
                .to_owned(),
        ]
    );
    assert_eq!(
        problems("listen = { http = 'off', grpc = 'off' }", &[]),
        ["listen.grpc (outhaul.toml:1): listen.http is off too, so there is nothing to serve; \
          turn one of them on"]
    );
}

#[test]
fn a_misspelt_variable_is_noted_and_a_foreign_one_is_not() {
    let environment = [
        ("OUTHAUL_HTPP", "127.0.0.1:1"),
        ("OUTHAUL_SERVICE_HOST", "10.0.0.1"),
        ("OUTHAUL_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("HOME", "/"),
    ];
    let sources = sources("", &environment, &[]);
    assert_eq!(
        sources.suspicious_variables(),
        ["the environment variable OUTHAUL_HTPP is not read; did you mean OUTHAUL_HTTP?"]
    );
    assert!(Config::resolve(sources).is_ok());
}

#[test]
fn a_file_that_was_named_must_exist() {
    let (_, declarations) = read_file(Some(Path::new("/nowhere/outhaul.toml"))).unwrap();
    let problems = declarations.into_problems();
    assert!(problems[0].to_string().contains("/nowhere/outhaul.toml: cannot be read"));
}
