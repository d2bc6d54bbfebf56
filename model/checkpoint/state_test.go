package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"promptgen/internal/fault"
	"promptgen/internal/half"
	"promptgen/model"
)

// smallState is a state with its first moment in float32 and the second in
// bfloat16.
func smallState(t testing.TB, step int64) *State {
	m := smallModel(t, false)
	c := m.Params.Config
	p := model.NewParams(c, false)
	p.Init(1)
	first, second := model.NewMoments(c, false, false), model.NewMoments(c, false, true)
	for i, t := range p.Tensors {
		copy(first.Tensors[i].F32, t.Data)
		for j, v := range t.Data {
			second.Tensors[i].BF16[j] = half.ToBF16(v) + 1
		}
	}
	return &State{
		Params: m.Params, M: first, V: second,
		Step: step, Epoch: 3, Seed: 1<<63 + 5,
		DataHash: "d", VocabHash: "v",
		Settings: json.RawMessage(`{"lr":1.5e-4}`), Metrics: []byte("{\"step\":1}\n"),
	}
}

// A state read again is the state that was written, to the bit.
func TestStateRoundTrip(t *testing.T) {
	ctx, dir := context.Background(), filepath.Join(t.TempDir(), "state")
	if s, err := LatestState(dir); s != nil || err != nil {
		t.Fatalf("a state out of nothing: %v, %v", s, err)
	}
	want := smallState(t, 123)
	if err := SaveState(ctx, dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := LatestState(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := want.Params.Config
	p, m, v := model.NewParams(c, false), model.NewMoments(c, false, false), model.NewMoments(c, false, true)
	if err := got.Read(p, m, v); err != nil {
		t.Fatal(err)
	}
	sameParams(t, p, want.Params)
	if !reflect.DeepEqual(m, want.M) || !reflect.DeepEqual(v, want.V) {
		t.Error("other moments")
	}
	// Into the other formats: widening is exact, and rounding to the nearest.
	if err := got.Read(p, v, m); err != nil {
		t.Fatal(err)
	}
	for i, moment := range m.Tensors {
		for j, h := range want.V.Tensors[i].BF16 {
			if moment.F32[j] != half.FromBF16(h) || v.Tensors[i].BF16[j] != half.ToBF16(want.M.Tensors[i].F32[j]) {
				t.Fatalf("%s, element %d is converted wrongly", moment.Name, j)
			}
		}
	}
	// A shorter position table takes the first rows.
	c.NCtx, c.NPositions = c.NPositions-1, c.NPositions-1
	short := model.NewParams(c, false)
	if err := got.Read(short, model.NewMoments(c, false, false), model.NewMoments(c, false, false)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(short.WPE, want.Params.WPE[:len(short.WPE)]) || !slices.Equal(short.LNFGain, want.Params.LNFGain) {
		t.Error("other weights with a shorter position table")
	}
	if got.Config != want.Params.Config || got.Step != 123 || got.Epoch != 3 || got.Seed != want.Seed ||
		got.DataHash != "d" || got.VocabHash != "v" || string(got.Metrics) != string(want.Metrics) || got.Dir != want.Dir {
		t.Errorf("got %+v", got)
	}
	var a, b map[string]float64
	if json.Unmarshal(got.Settings, &a) != nil || json.Unmarshal(want.Settings, &b) != nil || a["lr"] != b["lr"] {
		t.Errorf("settings %s", got.Settings)
	}
	if info, err := Inspect(filepath.Dir(dir)); err != nil || !info.Whole || info.Step != 123 {
		t.Errorf("inspect: %+v, %v", info, err)
	}
	if err := RemoveStates(context.Background(), dir, -1); err != nil {
		t.Fatal(err)
	}
	if s, err := LatestState(dir); s != nil || err != nil {
		t.Errorf("after removal: %v, %v", s, err)
	}
}

// The two newest stay; the newest whole one counts; where none is whole, that
// is an error and no fresh start.
func TestLatestWholeState(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	for _, step := range []int64{5, 1_000_000_000, 20, 999_999_999} {
		if err := SaveState(ctx, dir, smallState(t, step)); err != nil {
			t.Fatal(err)
		}
	}
	names, _ := stateDirs(dir)
	if len(names) != 2 || names[0] != "step-1000000000" || names[1] != "step-999999999" {
		t.Fatalf("kept %v", names)
	}
	files := []string{stateTensors, stateFacts, stateMetrics, manifestName}
	for _, name := range files {
		path := filepath.Join(dir, names[0], name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for what, b := range map[string][]byte{"cut": whole[:len(whole)-2], "flipped": flip(whole, len(whole)/2), "gone": nil} {
			if os.Remove(path); b != nil {
				os.WriteFile(path, b, 0o644)
			}
			_, err := LoadState(filepath.Join(dir, names[0]))
			wantCode(t, err, fault.CodeCorrupt, names[0])
			if s, err := LatestState(dir); err != nil || s.Step != 999_999_999 {
				t.Fatalf("%s %s: %v", name, what, err)
			}
		}
		os.WriteFile(path, whole, 0o644)
	}
	for _, n := range names {
		os.Remove(filepath.Join(dir, n, manifestName))
	}
	_, err := LatestState(dir)
	wantCode(t, err, fault.CodeCorrupt, dir)
}

// A state of a newer program is not damaged: passed over, it would be removed by
// the run that goes on from the one before it.
func TestNewerStateIsNotPassedOver(t *testing.T) {
	dir := t.TempDir()
	for step := range int64(2) {
		if err := SaveState(t.Context(), dir, smallState(t, step)); err != nil {
			t.Fatal(err)
		}
	}
	names, _ := stateDirs(dir)
	newest := filepath.Join(dir, names[0])
	m := newManifest(newest)
	for _, name := range []string{stateTensors, stateFacts, stateMetrics} {
		b, err := os.ReadFile(filepath.Join(newest, name))
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(filepath.Join(newest, name))
		if err := m.writeBytes(name, bytes.Replace(b, []byte(`"format": 1`), []byte(`"format": 2`), 1)); err != nil {
			t.Fatal(err)
		}
	}
	os.Remove(filepath.Join(newest, manifestName))
	if err := m.close(); err != nil {
		t.Fatal(err)
	}
	s, err := LatestState(dir)
	wantCode(t, err, fault.CodeCorrupt, "format 2", "newer", newest)
	if s != nil {
		t.Errorf("went on from step %d", s.Step)
	}
}

// A save that is called off leaves the former states as they were.
func TestCancelledSave(t *testing.T) {
	dir := t.TempDir()
	if err := SaveState(context.Background(), dir, smallState(t, 1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := SaveState(ctx, dir, smallState(t, 2)); fault.Code(err) != fault.CodeInterrupted {
		t.Fatalf("err %v", err)
	}
	if s, err := LatestState(dir); err != nil || s.Step != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 2 { // the state, a lock
		t.Errorf("left behind: %v", entries)
	}
}

// flip is a copy with one bit changed.
func flip(b []byte, at int) []byte {
	c := append([]byte(nil), b...)
	c[at] ^= 1
	return c
}
