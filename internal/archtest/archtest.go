// Package archtest holds the test that checks who may import whom (docs/adr/0003-layers.md).
package archtest
