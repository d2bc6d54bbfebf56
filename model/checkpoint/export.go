package checkpoint

import (
	"context"
	"slices"
	"strings"

	"promptgen/internal/fault"
	"promptgen/model/checkpoint/blob"
)

// Format is a format that Export writes.
type Format string

// The formats.
const (
	FormatHF      Format = "hf"      // a folder like Save's, in another type if asked for
	FormatPyTorch Format = "pytorch" // a folder with pytorch_model.bin in place of the safetensors
	FormatGGUF    Format = "gguf"    // one file for llama.cpp
)

// ExportOptions say what Export writes.
type ExportOptions struct {
	Format Format
	DType  string // fp32, fp16, bf16; for gguf q8_0 and q4_0 as well; "": fp32
}

// exportTypes are the types that each format takes.
var exportTypes = map[Format][]string{
	FormatHF:      {"fp32", "fp16", "bf16"},
	FormatPyTorch: {"fp32", "fp16", "bf16"},
	FormatGGUF:    {"fp32", "fp16", "bf16", "q8_0", "q4_0"},
}

// dtype checks the options and returns the type asked for.
func (o ExportOptions) dtype() (blob.DType, error) {
	types, ok := exportTypes[o.Format]
	if !ok {
		return "", fault.Usage("--format %q is not known: use hf, pytorch or gguf", o.Format)
	}
	name := strings.ToLower(o.DType)
	if name == "" {
		name = "fp32"
	}
	d, ok := blob.Named(name)
	if !ok || !slices.Contains(types, name) {
		return "", fault.Usage("--dtype %q cannot be written as %s: use %s", o.DType, o.Format, strings.Join(types, ", "))
	}
	return d, nil
}

// Check refuses (2) options that are not known, and a path where something lies
// that is not what Export writes.
func (o ExportOptions) Check(path string) error {
	if _, err := o.dtype(); err != nil {
		return err
	}
	if o.Format == FormatGGUF {
		return mayReplaceGGUF(path)
	}
	return MayReplace(path)
}

// Export writes m at path in a format for other programs, whole or not at all. A
// former export there is replaced, anything else is refused; so are weights that
// are not finite (CheckFinite).
func Export(ctx context.Context, path string, m *Model, o ExportOptions) error {
	if err := o.Check(path); err != nil {
		return err
	}
	d, err := o.dtype()
	if err != nil {
		return err
	}
	if err := m.CheckFinite(); err != nil {
		return err
	}
	switch o.Format {
	case FormatPyTorch:
		return m.exportPyTorch(ctx, path, d)
	case FormatGGUF:
		return m.exportGGUF(ctx, path, d)
	}
	return saveFolder(ctx, path, m, d)
}
