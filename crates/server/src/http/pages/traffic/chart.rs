//! One guard over time: a line for the estimate, a dashed one for the limit.

use maud::{Markup, html};
use outhaul_rollout::judge::Judgement;
use outhaul_rollout::traffic::Point;

/// The drawing's own units; the page stretches it.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 100.0;

/// Draws the history of the guard at `index`.
pub(super) fn chart(judgement: &Judgement, index: usize, history: &[Point]) -> Markup {
    let points: Vec<(f64, f64)> = history
        .iter()
        .filter_map(|point| {
            let estimate = point.estimates.get(index).copied().flatten()?;
            Some((point.at.0 as f64, estimate))
        })
        .collect();
    let now = judgement.estimate.map(|now| format!(", now {now:.4}")).unwrap_or_default();
    let label = format!("{} over time{now}, limit {}", judgement.guard, judgement.limit);
    let (line, limit) = drawn(&points, judgement.limit);
    html! {
        svg class="chart" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
            title { (label) }
            line x1="0" x2=(WIDTH) y1=(format!("{limit:.1}")) y2=(format!("{limit:.1}")) {}
            @if !line.is_empty() { polyline points=(line) {} }
        }
    }
}

/// Returns the line's points and the limit's height, from the top. The limit is always within the picture.
fn drawn(points: &[(f64, f64)], limit: f64) -> (String, f64) {
    let highest = points.iter().map(|(_, value)| *value).fold(limit, f64::max);
    let height = |value: f64| match highest > 0.0 {
        true => HEIGHT - value / (highest * 1.1) * HEIGHT,
        false => HEIGHT,
    };
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return (String::new(), height(limit));
    };
    let span = (last.0 - first.0).max(1.0);
    let point = |(at, value): &(f64, f64)| {
        format!("{:.1},{:.1}", (at - first.0) / span * WIDTH, height(*value))
    };
    let mut line: Vec<String> = points.iter().map(point).collect();
    if let [only] = &line[..] {
        // One point is no line: it is drawn across.
        let end = only.replacen("0.0,", &format!("{WIDTH:.1},"), 1);
        line.push(end);
    }
    (line.join(" "), height(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_and_the_limit_share_a_scale() {
        let (line, limit) = drawn(&[(0.0, 1.0), (10.0, 2.0), (20.0, 0.0)], 1.0);
        assert_eq!(line, "0.0,54.5 150.0,9.1 300.0,100.0");
        assert!((limit - 54.5).abs() < 0.1, "{limit}");
    }

    #[test]
    fn few_points_are_drawn_too() {
        assert_eq!(drawn(&[], 0.01).0, "");
        assert_eq!(drawn(&[(5.0, 0.5)], 1.0).0, "0.0,54.5 300.0,54.5");
        assert_eq!(drawn(&[(5.0, 0.0)], 0.0).1, HEIGHT);
    }
}
