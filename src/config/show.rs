//! The effective configuration as TOML, with what each knob is and where its value came from.

use super::{
    Config, Loaded,
    knob::{Knob, Table},
    load::full_key,
};
use std::fmt::{self, Write as _};

impl Loaded {
    /// Valid TOML that gives the same configuration again.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let defaults = Config::default();
        self.write_table(out, "", &self.config, &defaults)?;
        let tables = self.config.tables().into_iter().zip(defaults.tables());
        for ((path, table), (_, default)) in tables {
            write!(out, "\n\n")?;
            comment(out, table.about())?;
            writeln!(out, "[{path}]")?;
            self.write_table(out, path, table, default)?;
        }
        Ok(())
    }

    fn write_table(
        &self,
        out: &mut String,
        path: &str,
        table: &dyn Table,
        default: &dyn Table,
    ) -> fmt::Result {
        for knob in table.knobs() {
            if !out.is_empty() {
                writeln!(out)?;
            }
            self.write_knob(
                out,
                path,
                knob,
                (table.show(knob.name), default.show(knob.name)),
            )?;
        }
        Ok(())
    }

    fn write_knob(
        &self,
        out: &mut String,
        path: &str,
        knob: &Knob,
        (value, default): (String, String),
    ) -> fmt::Result {
        comment(out, knob.doc)?;
        writeln!(out, "# Expected: {}.", knob.kind)?;
        let origin = self.provenance.of(&full_key(path, knob.name));
        if value == default {
            writeln!(out, "{} = {value} # {origin}", knob.name)
        } else {
            writeln!(out, "{} = {value} # {origin}; default {default}", knob.name)
        }
    }
}

fn comment(out: &mut String, lines: &[&str]) -> fmt::Result {
    for line in lines {
        writeln!(out, "# {}", line.trim())?;
    }
    Ok(())
}
