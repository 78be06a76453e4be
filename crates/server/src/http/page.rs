//! The page that a browser gets: which models there are, how they are, and where to read on. One
//! document, no script, nothing loaded from elsewhere.

use std::fmt::{self, Display, Write};

use outhaul_router::{Standing, VersionStatus};
use outhaul_types::Label;

use crate::App;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Outhaul</title>\n\
<style>\nbody{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;\
color:#1d2733;background:#fff}\ntable{border-collapse:collapse;width:100%}\n\
th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid #d5dce3;\
vertical-align:top}\na{color:#0b5fa5}\n.off{color:#a3260f}\n@media(prefers-color-scheme:dark)\
{body{color:#dde4ea;background:#14191f}th,td{border-color:#35404b}a{color:#7ab8ee}.off{color:#ff8d75}}\
\n</style></head><body>\n<h1>Outhaul</h1>\n";

/// Returns the page.
pub(super) fn index(app: &App) -> String {
    let state = match (app.is_draining(), app.is_ready()) {
        (true, _) => "Leaving: requests in flight are being finished.",
        (false, true) => "Ready.",
        (false, false) => "Not ready yet.",
    };
    let version = env!("CARGO_PKG_VERSION");
    let models = app.router().models();
    let mut page = String::with_capacity(2_048 + 512 * models.len());
    page.push_str(HEAD);
    let written = writeln!(page, "<p>Version {version}. {state}</p>")
        .and_then(|()| table(&mut page, &models));
    written.expect("writing to a string does not fail");
    page.push_str(
        "<p><a href=\"/metrics\">Metrics</a> &middot; <a href=\"/v2\">Server</a> &middot; \
         <a href=\"/v2/models/stats\">Statistics</a></p>\n</body></html>\n",
    );
    page
}

fn table(page: &mut String, models: &[VersionStatus]) -> fmt::Result {
    if models.is_empty() {
        return page.write_str("<p>There are no models.</p>\n");
    }
    page.push_str(
        "<table><thead><tr><th>Model</th><th>Version</th><th>State</th><th>Labels</th>\
         <th>Engine</th><th>Memory</th><th>Batching</th><th></th></tr></thead><tbody>\n",
    );
    for status in models {
        row(page, status)?;
    }
    page.write_str("</tbody></table>\n")
}

fn row(page: &mut String, status: &VersionStatus) -> fmt::Result {
    let VersionStatus { name, version, standing, .. } = status;
    let labels: Vec<&str> = status.labels.iter().map(Label::as_str).collect();
    write!(page, "<tr><td>{name}</td><td>{version}</td>")?;
    let Some(model) = &status.ready else {
        // A failure's reason is long and takes the place of what is not known.
        let class = if matches!(standing, Standing::Failed) { " class=\"off\"" } else { "" };
        let (standing, labels) = (standing.as_str(), Text(&labels.join(", ")).to_string());
        write!(page, "<td{class}>{standing}</td><td>{labels}</td>")?;
        return writeln!(page, "<td{class} colspan=\"4\">{}</td></tr>", Text(&status.reason));
    };
    let path = format!("/v2/models/{name}/versions/{version}");
    let (engine, batching) = (Text(model.engine), Text(model.batching.as_str()));
    writeln!(
        page,
        "<td>{}</td><td>{}</td><td>{engine}</td><td>{}</td><td>{batching}, at most {} rows</td>\
         <td><a href=\"{path}\">signature</a> <a href=\"{path}/config\">configuration</a> \
         <a href=\"{path}/stats\">statistics</a></td></tr>",
        standing.as_str(),
        Text(&labels.join(", ")),
        status.memory.map(mebibytes).unwrap_or_default(),
        model.max_rows
    )?;
    match &status.last_error {
        None => Ok(()),
        Some(error) => writeln!(
            page,
            "<tr><td></td><td></td><td class=\"off\" colspan=\"6\">the last load failed: {}</td></tr>",
            Text(error)
        ),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Text that cannot leave the element it stands in.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let text = Text("<script>alert(\"&'\")</script>").to_string();
        assert_eq!(text, "&lt;script&gt;alert(&quot;&amp;&#39;&quot;)&lt;/script&gt;");
    }
}
