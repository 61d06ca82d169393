//! Files on disk: what cannot be opened, what shrinks, and models split into several files.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use worker_orcd::gguf::{Gguf, GgufError, GgufWriter, Limits, MetadataValue, SplitFault, TensorFault};
use worker_orcd::quant::Format;

/// A model may be shared between threads.
const _: fn() = || {
    fn is_shareable<T: Send + Sync>() {}
    is_shareable::<Gguf>();
};

fn filled(index: usize, n_bytes: u64) -> Vec<u8> {
    (0..n_bytes).map(|at| (at + 100 * index as u64) as u8).collect()
}

fn write(writer: &GgufWriter, path: &Path) {
    let n_bytes = writer
        .write_file(path, |index, tensor, sink| sink.write_all(&filled(index, tensor.n_bytes)))
        .unwrap();
    assert_eq!(fs::metadata(path).unwrap().len(), n_bytes);
}

mod one_file {
    use super::*;

    fn model_file(dir: &TempDir) -> PathBuf {
        let mut writer = GgufWriter::new();
        writer.set("general.name", MetadataValue::String("small".to_owned()));
        writer.add_tensor("first", &[1024], Format::F32).unwrap();
        writer.add_tensor("second", &[2048], Format::F32).unwrap();
        let path = dir.path().join("model.gguf");
        write(&writer, &path);
        path
    }

    #[test]
    fn the_map_and_positioned_reads_agree() {
        let dir = TempDir::new().unwrap();
        let path = model_file(&dir);
        let model = Gguf::open(&path).unwrap();
        assert_eq!(model.path(), Some(path.as_path()));
        assert_eq!(model.file_bytes(), fs::metadata(&path).unwrap().len());
        for (index, tensor) in model.tensors().iter().enumerate() {
            let expected = filled(index, tensor.n_bytes);
            assert_eq!(model.data(tensor), expected);
            let mut part = [0; 100];
            model.read_at(tensor, 777, &mut part).unwrap();
            assert_eq!(part, expected[777..877]);
        }
    }

    #[test]
    fn reading_past_a_tensor_is_refused() {
        let dir = TempDir::new().unwrap();
        let model = Gguf::open(model_file(&dir)).unwrap();
        let tensor = model.tensor("first").unwrap();
        for (offset, wanted) in [(4096, 1), (4095, 2), (0, 4097), (u64::MAX, 1)] {
            let error = model.read_at(tensor, offset, &mut vec![0; wanted]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("tensor `first`: {wanted} bytes at {offset} were asked for, it has 4096")
            );
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_and_no_signal() {
        let dir = TempDir::new().unwrap();
        let path = model_file(&dir);
        let model = Gguf::open(&path).unwrap();
        let second = model.tensor("second").unwrap();
        let cut = second.file_offset() + 1000;
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();

        let mut whole = vec![0; second.n_bytes as usize];
        let error = model.read_at(second, 0, &mut whole).unwrap_err();
        let GgufError::Tensor { name, fault } = error.fault() else { panic!("{error:?}") };
        assert_eq!(name, "second");
        let expected =
            TensorFault::Shrunk { offset: second.file_offset(), wanted: second.n_bytes, available: 1000 };
        assert_eq!(*fault, expected);
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(whole[..1000], filled(1, 1000));

        // What is still there can still be read.
        model.read_at(second, 0, &mut whole[..1000]).unwrap();
        let mut first = vec![0; 4096];
        model.read_at(model.tensor("first").unwrap(), 0, &mut first).unwrap();
        assert_eq!(first, filled(0, 4096));
    }

    #[test]
    fn a_missing_file_is_named() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("nowhere.gguf");
        let error = Gguf::open(&path).unwrap_err();
        assert!(matches!(&error, GgufError::Io { action: "open", path: named, .. } if *named == path));
        assert!(error.to_string().starts_with(&format!("cannot open `{}`: ", path.display())), "{error}");
    }

    #[test]
    fn a_directory_is_no_model() {
        let dir = TempDir::new().unwrap();
        let error = Gguf::open(dir.path()).unwrap_err();
        assert!(matches!(error, GgufError::NotAFile { .. }));
        assert_eq!(error.to_string(), format!("`{}` is not a regular file", dir.path().display()));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_no_model() {
        assert!(matches!(Gguf::open("/dev/null").unwrap_err(), GgufError::NotAFile { .. }));
    }

    #[test]
    fn faults_of_a_file_name_the_file() {
        let dir = TempDir::new().unwrap();
        for (bytes, fault) in [
            (&b""[..], "header: magic at offset 0 needs 4 bytes, the file has 0 left"),
            (b"PK\x03\x04", "not a GGUF file: it starts with \"PK\\x03\\x04\", expected \"GGUF\""),
        ] {
            let path = dir.path().join("bad.gguf");
            fs::write(&path, bytes).unwrap();
            let error = Gguf::open(&path).unwrap_err();
            assert_eq!(error.to_string(), format!("`{}`: {fault}", path.display()));
            assert_eq!(error.fault().to_string(), fault);
        }
    }
}

mod split {
    use super::*;

    /// What a shard says of itself: its number from 0, the number of files, the number of tensors.
    #[derive(Clone)]
    struct Keys {
        no: u16,
        count: u16,
        tensors: i32,
    }

    fn shard(keys: &Keys, tensors: &[&str]) -> GgufWriter {
        let mut writer = GgufWriter::new();
        if keys.no == 0 {
            writer.set("general.name", MetadataValue::String("split".to_owned()));
        }
        writer
            .set("split.no", MetadataValue::U16(keys.no))
            .set("split.count", MetadataValue::U16(keys.count))
            .set("split.tensors.count", MetadataValue::I32(keys.tensors));
        for name in tensors {
            writer.add_tensor(*name, &[16], Format::F32).unwrap();
        }
        writer
    }

    fn path(dir: &TempDir, number: u16) -> PathBuf {
        dir.path().join(format!("model-{number:05}-of-00003.gguf"))
    }

    /// Three files; the first holds no tensor, as `--no-tensor-first-split` makes them.
    fn model(edit: impl FnOnce(&mut [(Keys, Vec<&'static str>); 3])) -> TempDir {
        let keys = |no| Keys { no, count: 3, tensors: 3 };
        let mut shards = [(keys(0), vec![]), (keys(1), vec!["a", "b"]), (keys(2), vec!["c"])];
        edit(&mut shards);
        let dir = TempDir::new().unwrap();
        for (at, (keys, tensors)) in shards.iter().enumerate() {
            write(&shard(keys, tensors), &path(&dir, at as u16 + 1));
        }
        dir
    }

    #[test]
    fn any_shard_opens_the_whole_model() {
        let dir = model(|_| ());
        for number in 1..=3 {
            let model = Gguf::open(path(&dir, number)).unwrap();
            assert_eq!(model.metadata().str("general.name").unwrap(), Some("split"));
            assert_eq!((model.n_shards(), model.path()), (3, Some(path(&dir, 1).as_path())));
            let names: Vec<_> =
                model.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shard())).collect();
            assert_eq!(names, [("a", 1), ("b", 1), ("c", 2)]);
            let on_disk: u64 = (1..=3).map(|number| fs::metadata(path(&dir, number)).unwrap().len()).sum();
            assert_eq!(model.file_bytes(), on_disk);
            for (name, index) in [("a", 0), ("b", 1), ("c", 0)] {
                let tensor = model.tensor(name).unwrap();
                assert_eq!(model.data(tensor), filled(index, 64));
                let mut copy = [0; 64];
                model.read_at(tensor, 0, &mut copy).unwrap();
                assert_eq!(copy[..], filled(index, 64));
            }
        }
    }

    #[test]
    fn a_split_model_can_be_written_as_one_file() {
        let dir = model(|_| ());
        let split = Gguf::open(path(&dir, 1)).unwrap();
        let joined = dir.path().join("joined.gguf");
        GgufWriter::from_gguf(&split)
            .unwrap()
            .write_file(&joined, |index, _, sink| sink.write_all(split.data(&split.tensors()[index])))
            .unwrap();
        let joined = Gguf::open(joined).unwrap();
        assert_eq!(joined.n_shards(), 1);
        let keys: Vec<_> = joined.metadata().iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["general.name"]);
        for tensor in joined.tensors() {
            assert_eq!(joined.data(tensor), split.data(split.tensor(&tensor.name).unwrap()));
        }
    }

    #[test]
    fn a_missing_shard_is_named() {
        for missing in 2..=3 {
            let dir = model(|_| ());
            fs::remove_file(path(&dir, missing)).unwrap();
            let error = Gguf::open(path(&dir, 1)).unwrap_err();
            let named = path(&dir, missing);
            assert_eq!(
                error.to_string(),
                format!(
                    "`{}`: split model: shard {missing} of 3 is missing; put all shards into one directory",
                    named.display()
                )
            );
        }
    }

    #[test]
    fn the_first_shard_may_be_the_missing_one() {
        let dir = model(|_| ());
        fs::remove_file(path(&dir, 1)).unwrap();
        let error = Gguf::open(path(&dir, 2)).unwrap_err();
        let fault = SplitFault::MissingShard { number: 1, count: 3 };
        assert!(matches!(error.fault(), GgufError::Split { fault: found } if *found == fault), "{error}");
    }

    #[track_caller]
    fn refuses(dir: &TempDir, number: u16, expected: &str) {
        let error = Gguf::open(path(dir, number)).unwrap_err();
        assert_eq!(error.fault().to_string(), expected, "{error}");
    }

    #[test]
    fn a_wrong_number_is_refused() {
        let dir = model(|shards| shards[2].0.no = 1);
        refuses(&dir, 1, "split model: `split.no` is 1, expected 2");
    }

    #[test]
    fn a_shard_of_another_model_is_refused() {
        let dir = model(|shards| shards[1].0.count = 4);
        refuses(&dir, 1, "split model: `split.count` is 4, expected 3");
        refuses(&dir, 2, "split model: this is shard 2 of 4, so its name must end in `-00002-of-00004.gguf`");
    }

    #[test]
    fn a_wrong_tensor_count_is_refused() {
        let dir = model(|shards| shards[0].0.tensors = 4);
        refuses(&dir, 1, "split model: `split.tensors.count` is 4, expected 3");
        let dir = model(|shards| shards[0].0.tensors = -1);
        refuses(&dir, 1, "metadata key `split.tensors.count` holds an i32, expected a non-negative integer");
    }

    #[test]
    fn a_name_in_two_shards_is_refused() {
        let dir = model(|shards| shards[2].1 = vec!["a"]);
        refuses(&dir, 1, "tensor `a`: the name occurs twice");
        let error = Gguf::open(path(&dir, 1)).unwrap_err();
        assert!(error.to_string().contains("00003-of-00003"), "{error}");
    }

    #[test]
    fn a_renamed_shard_is_refused() {
        let dir = model(|_| ());
        let renamed = dir.path().join("model.gguf");
        fs::rename(path(&dir, 1), &renamed).unwrap();
        let error = Gguf::open(&renamed).unwrap_err();
        let fault = SplitFault::BadName { number: 1, count: 3 };
        assert!(matches!(error.fault(), GgufError::Split { fault: found } if *found == fault), "{error}");
    }

    #[test]
    fn a_shard_name_without_keys_is_refused() {
        let dir = TempDir::new().unwrap();
        write(&GgufWriter::new(), &path(&dir, 2));
        refuses(&dir, 2, "split model: the name says shard 2 of 3, the metadata has no `split.count`");
    }

    #[test]
    fn a_single_file_may_be_called_one_of_one() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("model-00001-of-00001.gguf");
        write(&GgufWriter::new(), &path);
        assert_eq!(Gguf::open(path).unwrap().n_shards(), 1);
    }

    #[test]
    fn limits_count_over_all_shards() {
        let dir = model(|_| ());
        let with = |limits: Limits| Gguf::open_with(path(&dir, 1), &limits).map(|model| model.n_shards());
        let refused = |limits| with(limits).unwrap_err().fault().to_string();
        assert_eq!(with(Limits { tensors: 3, shards: 3, ..Limits::default() }).unwrap(), 3);
        let tensors = refused(Limits { tensors: 2, ..Limits::default() });
        assert_eq!(tensors, "header: tensor count is 3, the limit is 2");
        let shards = refused(Limits { shards: 2, ..Limits::default() });
        assert_eq!(shards, "header: shard count is 3, the limit is 2");
    }
}
