//! A roll-out as a picture of a few lines.

use serde_json::Value;

use crate::commands::remote_server::columns;

/// How wide the bar of the candidate's share is.
const BAR: usize = 40;

/// Draws one roll-out as the admin API tells it.
pub(super) fn picture(status: &Value) -> String {
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let number = |key: &str| status[key].as_f64().unwrap_or_default();
    let share = number("share");
    let filled = (share * BAR as f64).round() as usize;
    let bar = format!("{}{}", "#".repeat(filled.min(BAR)), ".".repeat(BAR - filled.min(BAR)));
    let steps: Vec<String> = status["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .map(|step| format!("{step}%"))
        .collect();
    let mut picture = format!(
        "{}  {} -> {}  {}\n[{bar}] {}% of requests, steps {}\n",
        text("route"),
        text("from"),
        text("to"),
        text("phase").replace('_', " "),
        (share * 1e4).round() / 1e2,
        steps.join(" "),
    );
    if status["ended_at"].is_null() {
        let (gone, every) = (number("step_seconds"), number("every_seconds"));
        picture.push_str(&format!(
            "step under way for {} of at least {}\n",
            span(gone),
            span(every)
        ));
    }
    picture.push_str(&format!("{}\n", text("reason")));
    let mut rows =
        vec![["GUARD", "STANDS", "NOW", "INTERVAL", "SAMPLES"].map(str::to_owned).to_vec()];
    rows.extend(status["guards"].as_array().into_iter().flatten().map(guard));
    if rows.len() > 1 {
        picture.push('\n');
        picture.push_str(&columns(&rows));
    }
    picture
}

fn guard(judged: &Value) -> Vec<String> {
    let guard = judged["guard"].as_str().unwrap_or_default();
    let value = |value: &Value| value.as_f64().map(|number| shown(guard, number));
    let interval = match (value(&judged["interval"][0]), value(&judged["interval"][1])) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "-".to_owned(),
    };
    vec![
        guard.to_owned(),
        judged["verdict"].as_str().unwrap_or_default().to_owned(),
        value(&judged["estimate"]).unwrap_or_else(|| "-".to_owned()),
        interval,
        judged["samples"].to_string(),
    ]
}

/// Writes a number in the unit of its guard's limit.
fn shown(guard: &str, number: f64) -> String {
    match guard.chars().last() {
        Some('%') => format!("{:.2}%", number * 100.0),
        Some('x') => format!("{number:.2}x"),
        _ => format!("{:.1}ms", number * 1e3),
    }
}

fn span(seconds: f64) -> String {
    let whole = std::time::Duration::from_secs(seconds.max(0.0) as u64);
    humantime::format_duration(whole).to_string()
}

/// Writes a moment as UTC.
pub(super) fn time(milliseconds: i64) -> String {
    let since = std::time::Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    let at = std::time::UNIX_EPOCH + since;
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_roll_out_is_drawn() {
        let status = json!({
            "route": "reviews", "from": "reviews@2", "to": "reviews@3", "phase": "stepping",
            "share": 0.1, "steps": [1.0, 10.0, 100.0], "step_seconds": 75.4, "every_seconds": 600.0,
            "reason": "step 2 of 3", "ended_at": null,
            "guards": [
                {"guard": "error_rate<1%", "verdict": "keeps", "estimate": 0.0012,
                 "interval": [0.0001, 0.0098], "samples": 4200},
                {"guard": "p99<1.2x", "verdict": "undecided", "estimate": 1.01, "interval": null,
                 "samples": 4200},
            ],
        });
        let expected = "\
reviews  reviews@2 -> reviews@3  stepping
[####....................................] 10% of requests, steps 1% 10% 100%
step under way for 1m 15s of at least 10m
step 2 of 3

GUARD          STANDS     NOW    INTERVAL        SAMPLES
error_rate<1%  keeps      0.12%  0.01% to 0.98%  4200
p99<1.2x       undecided  1.01x  -               4200
";
        assert_eq!(picture(&status), expected);
    }

    #[test]
    fn moments_are_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
    }
}
