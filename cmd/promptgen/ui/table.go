package ui

import (
	"fmt"
	"text/tabwriter"
)

// Fact is one line of a result: a name and its value.
type Fact struct {
	Name  string
	Value any
}

// Facts prints results as two columns.
func (c *Console) Facts(facts ...Fact) error {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	for _, f := range facts {
		switch v := f.Value.(type) {
		case float64:
			fmt.Fprintf(w, "%s\t%.6g\n", f.Name, v)
		default:
			fmt.Fprintf(w, "%s\t%v\n", f.Name, v)
		}
	}
	return w.Flush()
}

// Table prints rows under a header; the columns are as wide as they need.
func (c *Console) Table(header []string, rows [][]string) error {
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}
