//! The easy-VQA test split, read from the data folder of the `easy_vqa` Python package.

use std::collections::btree_map::{BTreeMap, Entry};
use std::fs;
use std::path::Path;

use image::RgbImage;

use super::{Example, Task};
use crate::{Error, Result};

/// The questions of `folder` (the package's `data/test`), at most `limit` of them, in the file's order.
///
/// The folder holds `questions.json`, a list of `[question, answer, picture number]`, and `images/NUMBER.png`.
/// Each picture is read once. An error names the file that is missing or wrong.
pub fn load(folder: &Path, limit: usize) -> Result<Vec<Example>> {
    let path = folder.join("questions.json");
    let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let rows: Vec<(String, String, u32)> = serde_json::from_str(&text).map_err(|e| {
        Error::file(&path, format!("not a list of [question, answer, number]: {e}"))
    })?;
    let mut pictures = BTreeMap::new();
    let mut examples = Vec::new();
    for (question, answer, number) in rows.into_iter().take(limit) {
        let picture = match pictures.entry(number) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(read_picture(folder, number)?),
        };
        examples.push(Example {
            task: Task::EasyVqa,
            images: vec![picture.clone()],
            times: Vec::new(),
            question,
            think: false,
            answer,
        });
    }
    Ok(examples)
}

fn read_picture(folder: &Path, number: u32) -> Result<RgbImage> {
    let path = folder.join("images").join(format!("{number}.png"));
    let bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let image = image::load_from_memory(&bytes).map_err(|e| Error::media(&path, e.to_string()))?;
    Ok(image.to_rgb8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_questions_and_pictures() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        let picture = RgbImage::from_pixel(4, 4, image::Rgb([1, 2, 3]));
        picture.save(dir.path().join("images/7.png")).unwrap();
        fs::write(
            dir.path().join("questions.json"),
            r#"[["what color?", "red", 7], ["is it big?", "no", 7]]"#,
        )
        .unwrap();
        let examples = load(dir.path(), 10).unwrap();
        assert_eq!(examples.len(), 2);
        assert_eq!(examples[1].question, "is it big?");
        assert_eq!(examples[1].images[0], picture);
        assert_eq!(load(dir.path(), 1).unwrap().len(), 1);
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = load(dir.path(), 1).unwrap_err().to_string();
        assert!(missing.contains("questions.json"), "{missing}");
        fs::write(dir.path().join("questions.json"), r#"[["a", "b", 3]]"#).unwrap();
        let picture = load(dir.path(), 1).unwrap_err().to_string();
        assert!(picture.contains("3.png"), "{picture}");
    }
}
