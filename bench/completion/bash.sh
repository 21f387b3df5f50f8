# Completion of `invoke` and `nox` for bash. To be sourced: source <(invoke completion bash)
_sdw_checkout() {
    local folder=$PWD
    while [ -n "$folder" ]; do
        [ -f "$folder/bench/completion/__init__.py" ] && return 0
        folder=${folder%/*}
    done
    return 1
}
_sdw_complete() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} full prefix value
    COMPREPLY=()
    if ! _sdw_checkout; then # another project: what Invoke itself offers
        [ "${1##*/}" = nox ] || mapfile -t COMPREPLY < <(compgen -W "$("$1" --complete -- "${COMP_WORDS[@]}" 2>/dev/null)" -- "$current")
        return
    fi
    case $current in = | :) current='' ;; esac
    full=${line##*[[:space:]]}
    prefix=${full%"$current"} # bash cuts words at = and : and wants only what follows
    while IFS=$'\t' read -r value _; do
        COMPREPLY+=("${value#"$prefix"}")
    done < <(@PYTHON@ -m invoke completion bash --line "$line" 2>/dev/null)
    case ${#COMPREPLY[@]}:${COMPREPLY[0]-} in 1:*[=:/]) compopt -o nospace ;; esac
}
complete -o default -F _sdw_complete invoke inv nox
