# Returns the parameters that the command line gives, as a named list. Each of `parameters` is list(name, type, help).
.given_flags <- function(parameters, arguments = commandArgs(trailingOnly = TRUE)) {
  by_flag <- list()
  for (item in parameters) {
    flags <- unique(paste0(c("--", "--no-"), c(item$name, item$name, gsub("[_.]", "-", item$name), gsub("[_.]", "-", item$name))))
    for (flag in flags) {
      negative <- startsWith(flag, "--no-") && !startsWith(paste0("--", item$name), flag)
      if (!negative || item$type == "bool") {
        if (is.null(by_flag[[flag]])) by_flag[[flag]] <- c(item, negative = negative)
      }
    }
  }
  stop_with <- function(...) {
    cat("error: ", ..., "\n", sep = "", file = stderr())
    quit(save = "no", status = 2)
  }
  if (length(arguments) > 0 && any(arguments %in% c("-h", "--help")) && is.null(by_flag[["--help"]])) {
    cat("usage: Rscript SCRIPT [--NAME VALUE]...\n")
    for (item in parameters) cat(sprintf("  --%s %s\n      %s\n", gsub("[_.]", "-", item$name), toupper(item$type), item$help), sep = "")
    quit(save = "no", status = 0)
  }
  meaning <- function(item, text) {
    word <- tolower(trimws(text))
    unfit <- function(wanted) stop_with("argument --", item$name, ": expected ", wanted, ", not '", substr(text, 1, 60), "'")
    if (item$type == "str") return(text)
    if (item$type == "bool") {
      if (word %in% c("true", "yes", "on", "1")) return(TRUE)
      if (word %in% c("false", "no", "off", "0")) return(FALSE)
      unfit("true or false")
    }
    if (item$type %in% c("int", "float")) {
      number <- suppressWarnings(as.numeric(trimws(text)))
      if (is.na(number) && !is.nan(number)) unfit(if (item$type == "int") "a whole number" else "a number")
      if (item$type == "float") return(number)
      if (!is.finite(number) || number != round(number)) unfit("a whole number")
      return(if (abs(number) <= .Machine$integer.max) as.integer(number) else number)
    }
    if (item$type %in% c("list", "dict")) {
      if (!requireNamespace("jsonlite", quietly = TRUE)) stop_with("JSON values need the R package jsonlite")
      value <- tryCatch(
        jsonlite::fromJSON(text, simplifyDataFrame = FALSE, simplifyMatrix = FALSE),
        error = function(e) unfit(if (item$type == "list") "a JSON list" else "a JSON object")
      )
      opening <- substr(trimws(text), 1, 1)
      if (opening != (if (item$type == "list") "[" else "{")) unfit(if (item$type == "list") "a JSON list" else "a JSON object")
      return(value)
    }
    if (word %in% c("null", "none")) return(NULL)
    utils::type.convert(text, as.is = TRUE)
  }
  given <- list()
  position <- 1
  while (position <= length(arguments)) {
    argument <- arguments[[position]]
    position <- position + 1
    equals <- regexpr("=", argument, fixed = TRUE)
    flag <- if (equals > 0) substr(argument, 1, equals - 1) else argument
    item <- by_flag[[flag]]
    if (is.null(item)) stop_with("unrecognized argument: ", argument)
    if (item$type == "bool" && equals < 0) {
      following <- if (position <= length(arguments)) tolower(arguments[[position]]) else ""
      if (!item$negative && following %in% c("true", "yes", "on", "1", "false", "no", "off", "0")) {
        given[item$name] <- list(meaning(item, following))
        position <- position + 1
      } else {
        given[item$name] <- list(!item$negative)
      }
    } else {
      if (equals > 0) {
        text <- substr(argument, equals + 1, nchar(argument))
      } else {
        if (position > length(arguments)) stop_with("argument ", argument, ": expected one argument")
        text <- arguments[[position]]
        position <- position + 1
      }
      given[item$name] <- list(meaning(item, text))
    }
  }
  given
}
