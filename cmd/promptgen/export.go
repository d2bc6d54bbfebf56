package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/internal/atomicdir"
	"promptgen/internal/fault"
	"promptgen/model/checkpoint"
)

func (a *app) exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "write a model for other engines",
		Flags: []cli.Flag{
			modelFlag(),
			baseFlag(),
			vocabFlag("vocabulary `FILE` for a model folder without one"),
			&cli.BoolFlag{Name: "merge", Usage: "write adapters added to the model that they belong to"},
			&cli.StringFlag{Name: "out", Usage: "`PATH` to write: a folder, or the .gguf file"},
			&cli.StringFlag{Name: "format", Value: string(checkpoint.FormatHF), Usage: "`hf`, pytorch or gguf"},
			&cli.StringFlag{Name: "dtype", Value: "fp32", Usage: "`fp32`, fp16, bf16; gguf also q8_0 and q4_0"},
		},
		Action: func(c *cli.Context) error {
			out := c.String("out")
			if out == "" {
				return fault.Usage("export: --out is missing: name the folder or file to write")
			}
			o := checkpoint.ExportOptions{Format: checkpoint.Format(c.String("format")), DType: c.String("dtype")}
			if err := o.Check(out); err != nil {
				return err
			}
			if err := atomicdir.MayWrite(out); err != nil {
				return err
			}
			m, err := a.loadModel(c)
			if err != nil {
				return err
			}
			defer m.Close()
			switch merge := c.Bool("merge"); {
			case m.Base != nil && !merge:
				return fault.Usage("export: %s holds adapters alone; give --merge to write them added to %s", c.String("model"), m.Base.Path)
			case m.Base == nil && merge:
				return fault.Usage("export: %s is a whole model, --merge has nothing to add to it", c.String("model"))
			}
			sources := []string{c.String("model"), c.String("base"), c.String("vocab")}
			if m.Base != nil {
				sources = append(sources, m.Base.Path)
			}
			if err := notSource(out, sources); err != nil {
				return err
			}
			if err := checkpoint.Export(c.Context, out, m, o); err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(map[string]string{"model": out, "format": string(o.Format), "dtype": o.DType})
			}
			return a.console.Facts(ui.Fact{Name: "model", Value: out},
				ui.Fact{Name: "format", Value: o.Format}, ui.Fact{Name: "dtype", Value: o.DType})
		},
	}
}

// notSource refuses an output that is one of the models or files it is made
// from, or a file of these models' folders, by whatever name.
func notSource(out string, sources []string) error {
	for _, path := range sources {
		files := []string{path}
		entries, _ := os.ReadDir(path) // of a file there are none
		for _, e := range entries {
			files = append(files, filepath.Join(path, e.Name()))
		}
		if file := sameFile(out, files); file != "" {
			return fault.Usage("export: %s is %s, which the model is read from; choose another --out", out, file)
		}
	}
	return nil
}
