# Returns the parameters set on the command line, as a named list. Each of `parameters` is list(name, type, help).
.parse_args <- function(parameters, arguments = commandArgs(trailingOnly = TRUE)) {
  true_words <- c("true", "yes", "on", "1")
  false_words <- c("false", "no", "off", "0")
  fail <- function(...) {
    cat("error: ", ..., "\n", sep = "", file = stderr())
    quit(save = "no", status = 2)
  }
  dashed <- function(name) gsub("[_.]", "-", name)
  by_flag <- list()
  for (parameter in parameters) {
    for (prefix in if (parameter$type == "bool") c("--", "--no-") else "--") {
      for (flag in unique(paste0(prefix, c(parameter$name, dashed(parameter$name))))) {
        if (is.null(by_flag[[flag]])) by_flag[[flag]] <- c(parameter, negative = prefix == "--no-")
      }
    }
  }
  if (any(arguments %in% c("-h", "--help")) && is.null(by_flag[["--help"]])) {
    cat("usage: Rscript SCRIPT [--NAME VALUE]...\n")
    for (parameter in parameters) {
      cat(sprintf("  --%s %s\n      %s\n", dashed(parameter$name), toupper(parameter$type), parameter$help), sep = "")
    }
    quit(save = "no", status = 0)
  }
  parse_value <- function(parameter, text) {
    reject <- function(expected) fail("argument --", parameter$name, ": expected ", expected, ", not '", substr(text, 1, 60), "'")
    word <- tolower(trimws(text))
    type <- parameter$type
    if (type == "str") return(text)
    if (type == "bool") {
      if (word %in% true_words) return(TRUE)
      if (word %in% false_words) return(FALSE)
      reject("true or false")
    }
    if (type %in% c("int", "float")) {
      number <- suppressWarnings(as.numeric(trimws(text)))
      if (is.na(number) && !is.nan(number)) reject(if (type == "int") "a whole number" else "a number")
      if (type == "float") return(number)
      if (!is.finite(number) || number != round(number)) reject("a whole number")
      return(if (abs(number) <= .Machine$integer.max) as.integer(number) else number)
    }
    if (type %in% c("list", "dict")) {
      expected <- if (type == "list") "a JSON list" else "a JSON object"
      if (!requireNamespace("jsonlite", quietly = TRUE)) fail("JSON values need the R package jsonlite")
      if (substr(trimws(text), 1, 1) != (if (type == "list") "[" else "{")) reject(expected)
      return(tryCatch(
        jsonlite::fromJSON(text, simplifyDataFrame = FALSE, simplifyMatrix = FALSE),
        error = function(e) reject(expected)
      ))
    }
    if (word %in% c("null", "none")) return(NULL)
    utils::type.convert(text, as.is = TRUE)
  }
  values <- list()
  position <- 1
  while (position <= length(arguments)) {
    argument <- arguments[[position]]
    position <- position + 1
    equals <- regexpr("=", argument, fixed = TRUE)
    parameter <- by_flag[[if (equals > 0) substr(argument, 1, equals - 1) else argument]]
    if (is.null(parameter)) fail("unrecognized argument: ", argument)
    has_following <- position <= length(arguments)
    following <- if (has_following) arguments[[position]] else ""
    if (equals > 0) {
      value <- parse_value(parameter, substr(argument, equals + 1, nchar(argument)))
    } else if (parameter$type == "bool" && (parameter$negative || !(tolower(following) %in% c(true_words, false_words)))) {
      value <- !parameter$negative
    } else {
      if (!has_following) fail("argument ", argument, ": expected one argument")
      value <- parse_value(parameter, following)
      position <- position + 1
    }
    values[parameter$name] <- list(value)
  }
  values
}
