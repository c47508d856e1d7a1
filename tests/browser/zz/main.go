// scratch: serves the page of given models and takes pictures
package main

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	browserdemo "github.com/temper-ml/temper/browser-demo"
)

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func main() {
	d := os.Args[1]
	m := browserdemo.Models{Ordinary: must(os.ReadFile(d + "/ordinary.temper")), Hardened: must(os.ReadFile(d + "/hardened.temper")), Encoder: must(os.ReadFile(d + "/encoder.temper")), Decoder: must(os.ReadFile(d + "/decoder.temper")), Story: true}
	s := httptest.NewServer(must(browserdemo.Handler(m)))
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("/usr/bin/chromium"), chromedp.WSURLReadTimeout(90*time.Second), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1200, 1000))...)
	defer stop()
	ctx, end := chromedp.NewContext(alloc)
	defer end()
	chromedp.ListenTarget(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			fmt.Println("page:", ev.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			for _, a := range ev.Args {
				fmt.Printf("console: %s\n", a.Value)
			}
		}
	})
	wait := func(js string) chromedp.Action {
		return chromedp.ActionFunc(func(ctx context.Context) error {
			for range 900 {
				var ok bool
				if chromedp.Evaluate(`Boolean(`+js+`)`, &ok).Do(ctx); ok {
					return nil
				}
				time.Sleep(100 * time.Millisecond)
			}
			return fmt.Errorf("waiting for %s", js)
		})
	}
	shot := func(name string) chromedp.Action {
		return chromedp.ActionFunc(func(ctx context.Context) error {
			var png []byte
			if err := chromedp.FullScreenshot(&png, 100).Do(ctx); err != nil {
				return err
			}
			return os.WriteFile(d+"/"+name+".png", png, 0o644)
		})
	}
	dark := func(v string) chromedp.Action {
		return emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: v}})
	}
	t0 := time.Now()
	err := chromedp.Run(ctx, dark("light"), chromedp.Navigate(s.URL), wait(`globalThis.temperDemo?.failed || document.querySelector('#status').textContent.startsWith('Ready')`))
	fmt.Println("ready after", time.Since(t0))
	if err != nil {
		log.Fatal(err)
	}
	err = chromedp.Run(ctx, shot("1-first"), chromedp.Click("#attack"), chromedp.Sleep(400*time.Millisecond), shot("2-attacking"), wait(`temperDemo.lastAttack`), shot("3-attacked"),
		chromedp.Click("#teach"), wait(`document.querySelector('#trial-verdict').textContent.length > 3`), chromedp.Click("#send"), wait(`document.querySelector('#log').textContent.length > 60 && !document.querySelector('#send').disabled`), shot("4-taught"),
		dark("dark"), shot("5-dark"), chromedp.Click("#language"), chromedp.EmulateViewport(360, 740), chromedp.Sleep(500*time.Millisecond), shot("6-phone-zh-dark"), dark("light"), chromedp.Click("#language"), chromedp.Sleep(500*time.Millisecond), shot("7-phone"))
	if err != nil {
		log.Fatal(err)
	}
	// keyboard: tab through
	var order []string
	for range 16 {
		var a string
		if err := chromedp.Run(ctx, chromedp.KeyEvent("\t"), chromedp.Evaluate(`(document.activeElement.id || document.activeElement.textContent.slice(0,20)) + ' ' + document.activeElement.tagName`, &a)); err != nil {
			log.Fatal(err)
		}
		order = append(order, a)
	}
	fmt.Println(order)
}
