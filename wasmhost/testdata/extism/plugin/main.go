// Command plugin is a plug-in for Extism, built with its Go PDK.
package main

import (
	"errors"
	"strconv"
	"strings"

	"github.com/extism/go-pdk"
)

// begun counts what is done once, before any call.
var begun = func() int { return 41 }() + 1

// count_vowels counts the vowels that the configuration names, and adds up over the calls of one instance.
//
//go:wasmexport count_vowels
func countVowels() int32 {
	vowels, ok := pdk.GetConfig("vowels")
	if !ok {
		vowels = "aeiouAEIOU"
	}
	count := 0
	for _, r := range pdk.InputString() {
		if strings.ContainsRune(vowels, r) {
			count++
		}
	}
	total := pdk.GetVarInt("total") + count
	pdk.SetVarInt("total", total)
	err := pdk.OutputJSON(struct {
		Count  int    `json:"count"`
		Total  int    `json:"total"`
		Vowels string `json:"vowels"`
	}{count, total, vowels})
	if err != nil {
		pdk.SetError(err)
		return 1
	}
	return 0
}

// echo gives its input.
//
//go:wasmexport echo
func echo() int32 {
	pdk.Output(pdk.Input())
	return 0
}

// small does as little as can be done.
//
//go:wasmexport small
func small() int32 { return 0 }

//go:wasmexport fail
func fail() int32 {
	pdk.SetError(errors.New("no luck with " + pdk.InputString()))
	return 7
}

//go:wasmexport crash
func crash() int32 { panic("on purpose") }

//go:wasmexport logs
func logs() int32 {
	pdk.Log(pdk.LogDebug, "too fine")
	pdk.Log(pdk.LogInfo, "one line")
	pdk.Log(pdk.LogWarn, "two\nlines")
	pdk.Log(pdk.LogError, "bad")
	return 0
}

// variables sets, reads and removes a variable, and counts what was there.
//
//go:wasmexport variables
func variables() int32 {
	var told []string
	tell := func() { told = append(told, strconv.Quote(string(pdk.GetVar("v")))) }
	tell()
	pdk.SetVar("v", []byte("first"))
	tell()
	pdk.SetVar("v", []byte("second"))
	tell()
	pdk.RemoveVar("v")
	tell()
	pdk.OutputString(strings.Join(told, " ") + " " + strconv.Itoa(begun))
	begun++
	return 0
}

// fetch sends its input to the configuration's URL.
//
//go:wasmexport fetch
func fetch() int32 {
	url, _ := pdk.GetConfig("url")
	req := pdk.NewHTTPRequest(pdk.MethodPost, url).SetHeader("X-Mine", "yes").SetBody(pdk.Input())
	resp := req.Send()
	pdk.OutputString(strconv.Itoa(int(resp.Status())) + " " + resp.Headers()["x-server"] + " " + string(resp.Body()))
	return 0
}

func main() {}
