//! Whatever is converted is a sound graph.

use proptest::prelude::*;

use super::*;

/// Lines that often make a Dockerfile.
fn lines() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "FROM a",
        "FROM --platform=$BUILDPLATFORM a AS one",
        "FROM one AS two",
        "FROM scratch AS two",
        "ARG A=1 TARGETARCH",
        "ENV B=$A C=${A:-x} PATH=/x:$PATH",
        "RUN x $A",
        "RUN <<EOF\n#!/bin/sh\nx\nEOF",
        "RUN --mount=type=cache,target=/c,uid=1 --mount=from=one,target=/o --mount=type=secret,id=s x",
        "RUN --mount=target=/ctx,source=d,rw --mount=type=tmpfs,target=/t x",
        "COPY a b* /d/",
        "COPY --from=one --chown=u:g /a /b",
        "COPY --from=0 --link /a /b",
        "COPY --from=img --parents a/./b /d/",
        "COPY <<F /f\n$A\nF",
        "ADD --chmod=u+x a.tar /",
        "WORKDIR w",
        "USER u",
        "ONBUILD COPY --from=img /x /y",
        "CMD x",
        "ENTRYPOINT [\"y\"]",
        "EXPOSE 1-3",
    ]);
    prop::collection::vec(line, 1..14).prop_map(|lines| format!("FROM a\n{}", lines.join("\n")))
}

proptest! {
    #[test]
    fn a_conversion_is_a_sound_graph_or_an_error_with_a_place(text in lines(), trigger in any::<bool>()) {
        let case = case(&text)
            .attrs(&[("platform", "linux/amd64,linux/arm64")])
            .image("docker.io/library/a:latest", |config| {
                config.on_build = trigger.then(|| vec!["COPY --from=img /t /t".to_owned()]);
            });
        match case.try_run() {
            Ok(build) => {
                let definitions: Vec<_> = build.targets.iter().map(|target| &target.definition).collect();
                let (graph, _) = Graph::load(&definitions, Limits::default())
                    .map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
                for target in &build.targets {
                    let layers = target.config.history.iter().filter(|entry| !entry.empty_layer).count();
                    prop_assert!(layers <= graph.steps().len(), "{}", text);
                }
                prop_assert_eq!(case.run(), build);
            }
            Err(error) => {
                let count = text.lines().count() as u32;
                let lines = error.lines.ok_or_else(|| TestCaseError::fail(format!("{error} has no place")))?;
                prop_assert!(1 <= lines.start && lines.start <= lines.end && lines.end <= count);
            }
        }
    }
}
