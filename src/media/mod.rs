//! Pictures and clips: files in, patches and prompt layout out.
//!
//! | step | module |
//! |---|---|
//! | read a picture, fit it to its canvas, cut patches | [`picture`] |
//! | read a clip frame by frame, tell its cost | [`video`] |
//! | choose the canvas for a picture's size | [`plan`](mod@plan) |
//! | order the picture's tokens in the prompt | [`layout`] |

pub mod layout;
pub mod picture;
pub mod plan;
mod resize;
pub mod video;

pub use layout::{ImageBlock, Kind};
pub use picture::{Patches, prepare};
pub use plan::{Plan, PlanConfig, plan};
pub use resize::resize;
pub use video::{Clip, ClipInfo, ClipOptions, Frame};
