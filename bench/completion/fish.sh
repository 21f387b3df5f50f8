# Completion of `invoke` and `nox` for fish. To be sourced: invoke completion fish | source
function __sdw_checkout
    set -l folder $PWD
    while test -n "$folder"
        test -f "$folder/bench/completion/__init__.py"; and return 0
        set folder (string replace -r '/[^/]*$' '' -- "$folder")
    end
    return 1
end
function __sdw_complete
    set -l line (commandline --current-process --cut-at-cursor)
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    if not __sdw_checkout # another project: what Invoke itself offers
        string match -q '*nox' -- $words[1]; or $words[1] --complete -- $words 2>/dev/null
        return
    end
    set -l found (@PYTHON@ -m invoke completion fish --line "$line" 2>/dev/null)
    if set -q found[1]
        printf '%s\n' $found
    else
        __fish_complete_path (commandline --current-token --cut-at-cursor)
    end
end
for program in invoke inv nox
    complete --command $program --no-files --arguments '(__sdw_complete)'
end
