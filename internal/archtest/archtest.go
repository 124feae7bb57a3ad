// Package archtest holds the tests of the structure: who may import whom, and how large packages,
// functions and comment lines may be (docs/adr/0003-layers.md).
package archtest
