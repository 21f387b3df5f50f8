# Completion of `invoke` and `nox` for zsh. To be sourced: source <(invoke completion zsh)
_sdw_checkout() {
    local folder=$PWD
    while [[ -n $folder ]]; do
        [[ -f $folder/bench/completion/__init__.py ]] && return 0
        folder=${folder%/*}
    done
    return 1
}
_sdw_complete() {
    local -a found names texts
    local entry
    if ! _sdw_checkout; then # another project: what Invoke itself offers
        [[ ${words[1]:t} == nox ]] || found=(${(f)"$(${words[1]} --complete -- $words 2>/dev/null)"})
        (( $#found )) && compadd -- $found || _files
        return
    fi
    found=(${(f)"$(@PYTHON@ -m invoke completion zsh --line "${(j: :)${(@)words[1,CURRENT-1]}} $PREFIX" 2>/dev/null)"})
    for entry in $found; do
        names+=("${entry%%$'\t'*}")
        texts+=("${entry%%$'\t'*}  ${entry#*$'\t'}")
    done
    (( $#names )) || { _files; return }
    if [[ ${names[1]} == *[=:/] && $#names -eq 1 ]]; then
        compadd -S '' -l -d texts -- $names
    else
        compadd -l -d texts -- $names
    fi
}
autoload -Uz compinit
(( $+functions[compdef] )) || compinit -u
compdef _sdw_complete invoke inv nox
