package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
	"promptgen/model/checkpoint/safetensors"
)

// A part of a folder that is no file is damage of the folder, whichever part it
// is, and the line says so.
func TestFolderInPlaceOfAPart(t *testing.T) {
	for _, name := range []string{configName, metaName, vocabName, safetensorsName, userDictName} {
		m := smallModel(t, false)
		m.UserDict = []byte("高血压 5 n\n")
		dir := filepath.Join(t.TempDir(), "model")
		if err := Save(context.Background(), dir, m); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		_, err := Load(dir, LoadOptions{})
		wantCode(t, err, fault.CodeCorrupt, path, "is a folder")
		if info, err := Inspect(dir); err != nil || fault.Code(info.Err()) != fault.CodeCorrupt {
			t.Errorf("%s: inspect %+v, %v", name, info, err)
		}
	}
}

// Editors that put a byte order mark before JSON must not cost a model.
func TestByteOrderMark(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	if err := Save(context.Background(), dir, smallModel(t, false)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{configName, metaName} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append([]byte("\ufeff"), b...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir, LoadOptions{}); err != nil {
		t.Error(err)
	}
}

// Weights that no training leaves must not go on into files for other programs,
// and the line must name the folder and the tensor.
func TestNotFiniteIsNotExported(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		m := smallModel(t, false)
		if err := m.CheckFinite(); err != nil {
			t.Fatal(err)
		}
		const name = "transformer.h.1.ln_1.bias"
		for _, x := range m.Params.Tensors {
			if x.Name == name || x.Name == "transformer.ln_f.bias" { // the second is not the first
				x.Data[len(x.Data)-1] = float32(bad)
			}
		}
		dir := filepath.Join(t.TempDir(), "model")
		if err := Save(context.Background(), dir, m); err != nil {
			t.Fatal(err)
		}
		got, err := Load(dir, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for format := range exportTypes {
			out := filepath.Join(t.TempDir(), "out")
			err := Export(context.Background(), out, got, ExportOptions{Format: format})
			wantCode(t, err, fault.CodeCorrupt, dir, name, "value 7 is not finite")
			if exists(out) {
				t.Errorf("%s was written", format)
			}
		}
		got.Close()
	}
}

// A program that reads inspect's JSON must find lists where there can be some,
// never null: without notes, and for a tensor that is one number.
func TestInspectHasLists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "w.safetensors")
	one := safetensors.Floats("scale", nil, []float32{1}, blob.F32)
	writeParts(t, path, one)
	info, err := Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(info)
	if err != nil || bytes.Contains(b, []byte("null")) || !strings.Contains(string(b), `"notes":[]`) || !strings.Contains(string(b), `"shape":[]`) {
		t.Errorf("%s (%v)", b, err)
	}
}

// The folder that the program runs in is not replaced: the shell would be left
// in one that is no more.
func TestWorkingFolderIsKept(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, format := range []Format{FormatHF, FormatPyTorch} {
		err := Export(context.Background(), ".", smallModel(t, false), ExportOptions{Format: format})
		wantCode(t, err, fault.CodeUsage, "you are in")
	}
}
