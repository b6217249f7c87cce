//! The parts of a status, and which of them a window has place for: what is wrong stays longest.

use super::Space;
use crate::screen::layout::{Size, cut};

/// What is shown, from above to below.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Picture {
    /// The verdict, and what changes the environment now.
    pub(super) head: Vec<String>,
    pub(super) problems: Vec<String>,
    pub(super) services: Services,
    pub(super) nats: Vec<String>,
    /// The same in one line, if that says all that matters.
    pub(super) nats_in_short: Option<String>,
    pub(super) gateway: Option<String>,
    /// The verdict again.
    pub(super) foot: String,
}

/// The table of services, line by line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Services {
    pub(super) header: Option<String>,
    pub(super) unwell: Vec<String>,
    pub(super) healthy: Vec<String>,
}

impl Picture {
    pub(super) fn text(self, space: Space) -> String {
        let lines = match space {
            Space::Unlimited => self.lines(),
            Space::Columns(columns) => self.with_tables_within(columns).lines(),
            Space::Window(size) => self.within(size),
        };
        lines.join("\n")
    }

    /// Parts are set off by an empty line.
    fn lines(&self) -> Vec<String> {
        let mut lines = [self.head.clone(), self.problems.clone()].concat();
        let services: Vec<String> = self.services.lines().cloned().collect();
        let parts = [services, self.nats.clone(), self.gateway.clone().into_iter().collect()];
        let shown: Vec<Vec<String>> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if shown.is_empty() {
            // The verdict would be right below itself.
            return lines;
        }
        for part in shown {
            lines.push(String::new());
            lines.extend(part);
        }
        lines.extend([String::new(), self.foot.clone()]);
        lines
    }

    /// Tables are cut; what is wrong is not.
    fn with_tables_within(mut self, columns: usize) -> Self {
        for line in self.services.lines_mut().chain(&mut self.nats) {
            *line = cut(line, columns).into_owned();
        }
        self
    }

    /// The line under the last one is the cursor's.
    fn within(mut self, size: Size) -> Vec<String> {
        let rows = size.rows.saturating_sub(1);
        let excess = |picture: &Self| picture.lines().len().saturating_sub(rows);
        if excess(&self) > 0
            && let Some(short) = self.nats_in_short.take()
        {
            self.nats = vec![short];
        }
        let over = excess(&self);
        shorten(&mut self.services.healthy, over, "healthy");
        let over = excess(&self);
        shorten(&mut self.problems, over, "lines");
        let over = excess(&self);
        shorten(&mut self.services.unwell, over, "not healthy");
        if excess(&self) > 0 {
            (self.nats, self.gateway) = (Vec::new(), None);
        }
        let mut lines = self.lines();
        if lines.len() > rows {
            // The verdict stays.
            lines.truncate(rows);
        }
        lines.iter().map(|line| cut(line, size.columns).into_owned()).collect()
    }
}

impl Services {
    fn lines(&self) -> impl Iterator<Item = &String> {
        self.header.iter().chain(&self.unwell).chain(&self.healthy)
    }

    fn lines_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.header.iter_mut().chain(&mut self.unwell).chain(&mut self.healthy)
    }
}

/// Takes away the last lines, so many or all, and says how many.
pub(in crate::screen) fn shorten(lines: &mut Vec<String>, excess: usize, what: &str) {
    // In place of one line would be another one that says so.
    if excess == 0 || lines.len() < 2 {
        return;
    }
    let taken = (excess + 1).min(lines.len());
    lines.truncate(lines.len() - taken);
    lines.push(format!("… {taken} more {what}"));
}
