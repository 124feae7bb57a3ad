package main

import (
	"github.com/sluice-autoscaler/sluice/algorithms/catalog"
	"github.com/sluice-autoscaler/sluice/scaler/plugin"
)

// known is the catalog of every command: the built-in policies and those of policy servers.
func known() catalog.Catalog { return catalog.Default(plugin.Entry()) }
