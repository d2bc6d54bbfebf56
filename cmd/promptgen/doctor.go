package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"promptgen/cmd/promptgen/ui"
	"promptgen/configs"
	"promptgen/internal/atomicdir"
	"promptgen/internal/bench"
	"promptgen/internal/bytesize"
	"promptgen/internal/fault"
	"promptgen/internal/host"
	"promptgen/internal/kernel"
	"promptgen/internal/sysmem"
	"promptgen/model/plan"
	"promptgen/train"
)

// diagnosis is what doctor found.
type diagnosis struct {
	Program   host.Program  `json:"program"`
	CPU       string        `json:"cpu"`
	System    string        `json:"system"`
	ISA       string        `json:"isa"`
	ISAs      []string      `json:"isas"` // that this processor has
	Cores     int           `json:"cores"`
	Usable    int           `json:"usable_cores"` // under the limits of the control group
	Memory    sysmem.Usable `json:"memory"`
	HugePages string        `json:"huge_pages"` // always, madvise, never
	Limits    bench.Machine `json:"limits"`
	Disk      disk          `json:"disk"`
	Presets   []preset      `json:"presets"`
	Advice    []string      `json:"advice"`
}

type disk struct {
	Folder     string  `json:"folder"`
	Free       int64   `json:"free_bytes"`
	WriteSpeed float64 `json:"write_bytes_per_s"`
}

// preset is what a model config needs and how fast it would go here.
type preset struct {
	Name         string  `json:"name"`
	Parameters   int64   `json:"parameters"`
	TrainBytes   int64   `json:"train_bytes"`
	Fits         bool    `json:"fits"`
	Batch        int     `json:"batch_size"`
	DType        string  `json:"dtype"`
	TokensPerSec float64 `json:"train_tokens_per_s"`  // estimated
	DecodeSpeed  float64 `json:"decode_tokens_per_s"` // estimated, one text
	DiskBytes    int64   `json:"disk_bytes"`          // a model and two states
}

func (a *app) doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "say what this machine can do, and what would help",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Value: ".", Usage: "`FOLDER` that models would be written to"},
		},
		Action: func(c *cli.Context) error {
			d, err := a.diagnose(c.Context, c.String("out"), c.Int("threads"))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return a.console.JSON(d)
			}
			return a.printDiagnosis(d)
		},
	}
}

func (a *app) diagnose(ctx context.Context, folder string, threads int) (*diagnosis, error) {
	cpu, err := kernel.New(kernel.Options{Threads: threads, ISA: a.env["ISA"]})
	if err != nil {
		return nil, fault.With(fault.CodeUsage, err)
	}
	defer cpu.Close()
	m := host.ReadMachine()
	d := &diagnosis{
		Program: host.ReadProgram(), CPU: m.CPU, System: m.OS, ISA: cpu.ISA(), ISAs: kernel.ISAs(),
		Cores: runtime.NumCPU(), Usable: runtime.GOMAXPROCS(0), Memory: sysmem.Find(), HugePages: host.HugePages(),
	}
	if d.Disk, err = measureDisk(folder); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.Limits = bench.MeasureMachine(cpu, kernel.FP32, 0)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	share := trainingShare(cpu, d.Limits)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, name := range configs.Names() {
		p, err := d.judge(name, share)
		if err != nil {
			return nil, err
		}
		d.Presets = append(d.Presets, p)
	}
	d.advise()
	return d, nil
}

// trainingShare is which share of the limit a product of training's usual shape
// reaches here: with it a preset's speed is estimated.
func trainingShare(cpu *kernel.CPU, limit bench.Machine) float64 {
	const m, n, k = 1024, 2304, 768
	x, w, y := make([]float32, m*k), make([]float32, k*n), make([]float32, m*n)
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	for i := range w {
		w[i] = float32(i%5) - 2
	}
	g := kernel.Gemm{M: m, N: n, K: k, A: x, B: w, C: y, BF16: bestType(limit) == kernel.BF16}
	best := time.Duration(1 << 62)
	for range 8 {
		start := time.Now()
		cpu.Gemm(&g)
		best = min(best, time.Since(start))
	}
	// The rest of a step (attention, norms, the optimizer) takes time as well.
	const besidesProducts = 0.8
	return besidesProducts * 2 * m * n * k / best.Seconds() / 1e9 / limit.Limit(bestType(limit))
}

// bestType is what to train in here.
func bestType(m bench.Machine) kernel.DType {
	if m.BF16 > 1.2*m.FP32 {
		return kernel.BF16
	}
	return kernel.FP32
}

// judge says what a preset needs and how fast it would go.
func (d *diagnosis) judge(name string, share float64) (preset, error) {
	c, err := configs.Load(name)
	if err != nil {
		return preset{}, err
	}
	c.VocabSize = bench.DefaultVocab
	dtype := bestType(d.Limits)
	o := train.DefaultOptions()
	p := preset{Name: name, Parameters: c.NumParams(), Batch: o.BatchSize, DType: dtype.String()}
	want := plan.Settings{Batch: p.Batch, Sequences: p.Batch, Threads: d.Usable, BF16: dtype == kernel.BF16}
	want, p.Fits, err = plan.Fit(c, want, plan.Auto, defaultLimit(d.Memory))
	if err != nil {
		return preset{}, err
	}
	parts, err := plan.Of(c, want)
	if err != nil {
		return preset{}, err
	}
	p.Batch, p.TrainBytes = want.Batch, parts.Total()
	p.TokensPerSec = share * d.Limits.Limit(dtype) * 1e9 / bench.TokenFlops(c)
	perWeight := 3.5 // bytes, as decoding packs them
	if dtype == kernel.BF16 {
		perWeight = 1.5
	}
	const decodingShare = 0.75 // of the memory's speed, as decoding reaches it
	p.DecodeSpeed = decodingShare * d.Limits.Bytes / (perWeight * float64(p.Parameters))
	p.DiskBytes = 4*p.Parameters + 2*12*p.Parameters
	return p, nil
}

const diskProbe = 128 << 20 // bytes written to measure the disk

// measureDisk writes a file and has it synced.
func measureDisk(folder string) (disk, error) {
	d := disk{Folder: folder}
	existing := folder // where it will be made
	for {
		info, err := os.Stat(existing)
		if err == nil && info.IsDir() {
			break
		}
		if err == nil {
			return d, fault.Usage("--out %s: %s is a file; name a folder", folder, existing)
		}
		up := filepath.Dir(existing)
		if up == existing {
			return d, fault.Usage("--out %s: no such folder", folder)
		}
		existing = up
	}
	d.Free, _ = atomicdir.FreeSpace(existing)
	f, err := os.CreateTemp(existing, ".promptgen-doctor-*")
	if err != nil {
		return d, fault.Usage("--out %s: cannot be written to (%v)", folder, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	n := int64(diskProbe)
	if d.Free > 0 {
		n = min(n, d.Free/4)
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 167)
	}
	start := time.Now()
	for written := int64(0); written < n; written += int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			return d, fmt.Errorf("measuring the disk: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return d, fmt.Errorf("measuring the disk: %w", err)
	}
	d.WriteSpeed = float64(n) / time.Since(start).Seconds()
	return d, nil
}

// advise says what would help, in plain words.
func (d *diagnosis) advise() {
	add := func(format string, args ...any) { d.Advice = append(d.Advice, fmt.Sprintf(format, args...)) }
	switch best := d.ISAs[0]; {
	case best == "go":
		add("this processor has no vector instructions that the kernels know: training will be many times slower than on one with AVX2 or AVX-512")
	case d.ISA != best:
		add("the kernels run at level %s; the processor has %s: unset PROMPTGEN_ISA", d.ISA, best)
	}
	if bestType(d.Limits) == kernel.BF16 {
		add("train with --dtype bf16: products are %.1f times as fast here as in fp32", d.Limits.BF16/d.Limits.FP32)
	} else {
		add("train with --dtype fp32: this processor computes bf16 no faster")
	}
	if d.Usable < d.Cores {
		add("%d of %d cores may be used: a control group or GOMAXPROCS limits this process", d.Usable, d.Cores)
	}
	if d.HugePages == "never" {
		add("huge pages are off: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled makes large models faster")
	}
	var largest string
	limit := bytesize.Format(defaultLimit(d.Memory))
	for _, p := range d.Presets {
		if p.Fits {
			largest = p.Name
		} else if d.Memory.Bytes > 0 {
			add("preset %s needs %s even with one sequence at a time, more than the %s that a training keeps within here; see promptgen plan --config %s --max-memory %s",
				p.Name, bytesize.Format(p.TrainBytes), limit, p.Name, strings.ReplaceAll(limit, " ", ""))
		}
		if p.Fits && d.Disk.Free > 0 && p.DiskBytes > d.Disk.Free {
			add("%s has %s free; training %s writes some %s", d.Disk.Folder, bytesize.Format(d.Disk.Free), p.Name, bytesize.Format(p.DiskBytes))
		}
	}
	if largest != "" {
		add("the largest preset that can be trained here is %s", largest)
	}
}

func (a *app) printDiagnosis(d *diagnosis) error {
	memory := "not known"
	if d.Memory.Bytes > 0 {
		memory = fmt.Sprintf("%s usable (%s)", bytesize.Format(d.Memory.Bytes), d.Memory.From)
	}
	err := a.console.Facts(
		ui.Fact{Name: "processor", Value: d.CPU},
		ui.Fact{Name: "system", Value: d.System},
		ui.Fact{Name: "kernels", Value: fmt.Sprintf("%s (of %s)", d.ISA, strings.Join(d.ISAs, ", "))},
		ui.Fact{Name: "cores", Value: fmt.Sprintf("%d usable of %d", d.Usable, d.Cores)},
		ui.Fact{Name: "memory", Value: memory},
		ui.Fact{Name: "huge pages", Value: d.HugePages},
		ui.Fact{Name: "products", Value: fmt.Sprintf("fp32 %.0f GFLOP/s, bf16 %.0f GFLOP/s (measured)", d.Limits.FP32, d.Limits.BF16)},
		ui.Fact{Name: "memory speed", Value: fmt.Sprintf("%.1f GB/s read (measured)", d.Limits.Bytes/1e9)},
		ui.Fact{Name: "disk", Value: fmt.Sprintf("%s: %s free, writes %.0f MB/s (measured)", d.Disk.Folder, bytesize.Format(d.Disk.Free), d.Disk.WriteSpeed/1e6)},
	)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.text)
	rows := make([][]string, len(d.Presets))
	for i, p := range d.Presets {
		fits := "yes"
		if !p.Fits {
			fits = "no"
		}
		rows[i] = []string{p.Name, fmt.Sprintf("%.1f M", float64(p.Parameters)/1e6), bytesize.Format(p.TrainBytes), fmt.Sprint(p.Batch), fits,
			fmt.Sprintf("~%.0f", p.TokensPerSec), fmt.Sprintf("~%.0f", p.DecodeSpeed), bytesize.Format(p.DiskBytes)}
	}
	err = a.console.Table([]string{"preset", "parameters", "training needs", "batch", "fits", "trains tokens/s", "writes tokens/s", "on disk"}, rows)
	if err != nil {
		return err
	}
	fmt.Fprintln(a.text)
	for _, line := range d.Advice {
		fmt.Fprintln(a.text, "- "+line)
	}
	return nil
}
