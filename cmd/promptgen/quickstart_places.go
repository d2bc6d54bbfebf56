package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"

	"promptgen/data"
	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
	"promptgen/train"
	"promptgen/train/report"
	"promptgen/train/runlog"
)

// samplePath is where the sample lies in the folder of a quickstart.
const samplePath = "corpus/sample.txt"

// mayBegin refuses, before anything is written, text that cannot be read and
// places that hold something else than what a quickstart puts there: the folder
// may be one that its user keeps things in.
func (q *quickstart) mayBegin() error {
	if q.dir == "" {
		return fault.Usage("quickstart: --dir is empty: name the folder to write to")
	}
	paths, err := q.textFiles()
	if err != nil {
		return err
	}
	if err := vocabPlace("quickstart", "--dir", q.path(defaultVocab), paths); err != nil {
		return err
	}
	if err := q.tokensPlace(); err != nil {
		return err
	}
	return q.modelPlace()
}

// textFiles are the files that the user names; the sample, where there are none,
// has a place to go.
func (q *quickstart) textFiles() ([]string, error) {
	if len(q.corpus) == 0 {
		return nil, q.samplePlace()
	}
	for _, path := range q.corpus {
		info, err := os.Stat(path)
		if path == data.Stdin || err == nil && !info.IsDir() && !info.Mode().IsRegular() {
			return nil, fault.Usage("%s: quickstart reads its text several times, which a pipe does not allow; name a file", path)
		}
	}
	return data.ExpandGlobs(q.corpus)
}

// samplePlace refuses to write the sample over a user's text.
func (q *quickstart) samplePlace() error {
	path := q.path(samplePath)
	if err := atomicdir.MayWriteFile(path); err != nil {
		return fault.With(fault.Code(err), fmt.Errorf("quickstart: --dir %w", err))
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Usage("quickstart: %s cannot be read (%w); choose another --dir", path, fault.Reason(err))
	}
	if len(text) > 0 && string(text) != sampleCorpus {
		return fault.Usage("quickstart: %s is there and another text than the sample, it would be replaced; name the file to train on it, or choose another --dir", path)
	}
	return nil
}

// writeSample puts the sample where it is not yet: tokens of a file that stayed as
// it was need not be made again.
func (q *quickstart) writeSample(ctx context.Context) error {
	path := q.path(samplePath)
	if text, err := os.ReadFile(path); err == nil && string(text) == sampleCorpus {
		return nil
	}
	return atomicdir.WriteFile(ctx, path, func(w io.Writer) error { _, err := io.WriteString(w, sampleCorpus); return err })
}

// tokensPlace refuses a folder that is none of tokens. Damaged ones are replaced,
// and Tokenize looks closer, before the vocabulary is written.
func (q *quickstart) tokensPlace() error {
	dir := q.path(defaultData)
	if entries, err := os.ReadDir(dir); errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	set, err := data.OpenSet(dir)
	if err == nil {
		set.Close()
	}
	if fault.Code(err) == fault.CodeUsage {
		return fault.Usage("quickstart: %s is there and no folder of tokens, it would be replaced; choose another --dir", dir)
	}
	return nil
}

// modelPlace refuses what a training would replace and no training has written.
func (q *quickstart) modelPlace() error {
	out := q.path(defaultOut)
	models := []string{train.FinalModel(out), train.BestModel(out)}
	for e := range mostEpochs {
		models = append(models, train.EpochModel(out, e+1))
	}
	for _, dir := range models {
		if err := checkpoint.MayReplace(dir); err != nil {
			return err
		}
	}
	if err := report.MayReplace(filepath.Join(out, report.Name)); err != nil {
		return err
	}
	if _, err := runlog.ReadRun(out); err == nil {
		return nil
	}
	for _, name := range []string{runlog.RunName, runlog.MetricsName} {
		path := filepath.Join(out, name)
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return fault.Usage("quickstart: %s is there and of no training, it would be replaced; choose another --dir", path)
		}
	}
	return nil
}

// begun says whether the training in the output folder is the one that o asks
// for, of the same tokens and vocabulary (one checksum is of both), so that it may
// go on where it was interrupted. Any other is begun afresh: a quickstart has no
// flag to say so.
func begun(o train.Options, set *data.Set) bool {
	run, err := runlog.ReadRun(o.Out)
	if err != nil || run.Changed != "" || run.Data.Hash != set.Manifest.Checksum {
		return false
	}
	var was train.Options
	if json.Unmarshal(run.Options, &was) != nil {
		return false
	}
	// Where things lie, what changes no number, and what a run settles itself.
	was.Data, was.Out, was.Threads, was.Recompute = o.Data, o.Out, o.Threads, o.Recompute
	was.Command, was.Resume, was.Shards = o.Command, o.Resume, o.Shards
	return reflect.DeepEqual(was, o)
}
