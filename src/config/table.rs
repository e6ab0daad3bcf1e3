//! The macro behind [`super::Config`]: from one declaration per knob it makes the public field with its
//! docs, the default, and the entry by which sources find and `tidings config` prints it.

macro_rules! table {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ $knob:ident: $type:ty = $default:expr, $kind:expr; )*
        }
        $( tables { $( $(#[doc = $what:literal])+ $table:ident: $inner:ty; )+ } )?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $knob: $type, )*
            $( $( $(#[doc = $what])+ pub $table: $inner, )+ )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $knob: $default, )*
                    $( $( $table: <$inner>::default(), )+ )?
                }
            }
        }

        impl $crate::config::knob::Table for $name {
            fn about(&self) -> &'static [&'static str] {
                &[$( $about ),+]
            }

            fn knobs(&self) -> &'static [Knob] {
                const KNOBS: &[Knob] = &[
                    $( Knob { name: stringify!($knob), doc: &[$( $doc ),+], kind: $kind }, )*
                ];
                KNOBS
            }

            fn tables(&self) -> Vec<(&'static str, &dyn Table)> {
                vec![$( $( (stringify!($table), &self.$table), )+ )?]
            }

            fn tables_mut(&mut self) -> Vec<(&'static str, &mut dyn Table)> {
                vec![$( $( (stringify!($table), &mut self.$table), )+ )?]
            }

            fn set(&mut self, name: &str, node: &Node) -> Result<(), Fault> {
                match name {
                    $( stringify!($knob) => self.$knob = knob::read(node, &$kind)?, )*
                    _ => {}
                }
                Ok(())
            }

            fn check(&self, name: &str) -> Result<(), Fault> {
                match name {
                    $( stringify!($knob) => knob::check(&self.$knob, &$kind), )*
                    _ => Ok(()),
                }
            }

            fn show(&self, name: &str) -> String {
                match name {
                    $( stringify!($knob) => Setting::show(&self.$knob, &$kind), )*
                    _ => String::new(),
                }
            }
        }
    };
}

pub(super) use table;
