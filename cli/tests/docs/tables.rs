//! Tables of a Terraform module's inputs and outputs, in the form of terraform-docs.
//!
//! Reads what `terraform fmt` writes: a block begins and ends at the margin, its attributes are indented by two.

use std::fmt::Write as _;

pub(crate) const BEGIN: &str = "<!-- BEGIN_TF_DOCS -->";
pub(crate) const END: &str = "<!-- END_TF_DOCS -->";

/// The tables.
pub(crate) fn document(variables: &str, outputs: &str) -> String {
    let mut text = String::new();
    let inputs = blocks(variables, "variable");
    if !inputs.is_empty() {
        text.push_str("\n## Inputs\n\n| name | description | type | default |\n| --- | --- | --- | --- |\n");
        for block in &inputs {
            let default = block.get("default").map_or_else(|| "required".to_owned(), |value| format!("`{value}`"));
            let kind = block.get("type").unwrap_or_else(|| "any".to_owned());
            let _ = writeln!(text, "| `{}` | {} | `{kind}` | {default} |", block.name, block.description());
        }
    }
    let outputs = blocks(outputs, "output");
    if !outputs.is_empty() {
        text.push_str("\n## Outputs\n\n| name | description |\n| --- | --- |\n");
        for block in &outputs {
            let _ = writeln!(text, "| `{}` | {} |", block.name, block.description());
        }
    }
    text.push('\n');
    text
}

struct Block<'a> {
    name: &'a str,
    lines: Vec<&'a str>,
}

impl Block<'_> {
    fn description(&self) -> String {
        let text = self.get("description").unwrap_or_else(|| panic!("`{}` has no description", self.name));
        text.trim_matches('"').replace("\\\"", "\"")
    }

    /// The value of an attribute, in one line.
    fn get(&self, name: &str) -> Option<String> {
        let start = self.lines.iter().position(|line| attribute(line) == Some(name))?;
        let rest = self.lines[start + 1..].iter().take_while(|line| line.starts_with("   ") || is_closing(line));
        let first = self.lines[start].split_once('=')?.1;
        let mut value = first.trim().to_owned();
        for line in rest.map(|line| line.trim()).filter(|line| !line.is_empty()) {
            let open = value.ends_with(['{', '(', '[', ',']);
            value.push_str(if open || line.starts_with(['}', ')', ']']) { " " } else { ", " });
            value.push_str(&line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        Some(value.replace('|', "\\|"))
    }
}

/// The name of the attribute that a line begins.
fn attribute(line: &str) -> Option<&str> {
    let line = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?;
    line.split_once('=').map(|(name, _)| name.trim())
}

/// Whether a line ends a value that began in an earlier one.
fn is_closing(line: &str) -> bool {
    line.strip_prefix("  ").is_some_and(|rest| rest.starts_with(['}', ')', ']']))
}

fn blocks<'a>(text: &'a str, kind: &str) -> Vec<Block<'a>> {
    let mut found: Vec<Block<'_>> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let head = line.strip_prefix(kind).and_then(|rest| rest.trim().strip_prefix('"')?.split('"').next());
        if let Some(name) = head {
            found.push(Block { name, lines: Vec::new() });
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if let (true, Some(block)) = (inside, found.last_mut()) {
            block.lines.push(line);
        }
    }
    found
}

#[test]
fn types_of_several_lines_become_one() {
    let variables = "variable \"size\" {\n  description = \"How large.\"\n  type = object({\n    width  = number\n    height = optional(number, 2)\n  })\n  default = { width = 1 }\n\n  validation {\n    condition = var.size.width > 0\n  }\n}\n\nvariable \"name\" {\n  description = \"What for.\"\n  type        = string\n}\n";
    let outputs = "output \"area\" {\n  description = \"Width times height.\"\n  value       = 1\n}\n";
    let expected = "
## Inputs

| name | description | type | default |
| --- | --- | --- | --- |
| `size` | How large. | `object({ width = number, height = optional(number, 2) })` | `{ width = 1 }` |
| `name` | What for. | `string` | required |

## Outputs

| name | description |
| --- | --- |
| `area` | Width times height. |

";
    assert_eq!(document(variables, outputs), expected);
}
