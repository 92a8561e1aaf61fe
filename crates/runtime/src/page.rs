use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use crate::status::View;

/// The status page.
pub(crate) fn render(views: &[View], uptime: Duration) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { title { "Fhirehose" } }
            body {
                h1 { "Fhirehose" }
                p { "up " (uptime.as_secs()) " s" }
                @for view in views { p { (view.processor) " " (view.lag) } }
            }
        }
    }
}
