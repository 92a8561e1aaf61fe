// The official FHIR R4 validator as a filter: one resource as JSON per line on standard input, one line
// `<line number>\t<severity>\t<location>\t<message>` per error on standard output, then `done <count>`.
// Terminology is what the specification itself carries; other code systems (LOINC, SNOMED CT) are not checked.
import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.ResultSeverityEnum;
import ca.uhn.fhir.validation.SingleValidationMessage;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.SnapshotGeneratingValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;

public final class FhirValidate {
    public static void main(String[] args) throws Exception {
        FhirContext context = FhirContext.forR4();
        FhirValidator validator = context.newValidator();
        validator.registerValidatorModule(new FhirInstanceValidator(new ValidationSupportChain(
            new DefaultProfileValidationSupport(context),
            new CommonCodeSystemsTerminologyService(context),
            new InMemoryTerminologyServerValidationSupport(context),
            new SnapshotGeneratingValidationSupport(context))));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        int line = 0;
        for (String resource; (resource = in.readLine()) != null; ) {
            line++;
            List<SingleValidationMessage> messages;
            try {
                messages = validator.validateWithResult(resource).getMessages();
            } catch (RuntimeException error) {
                // It does not stand some input, such as null for a URL.
                out.printf("%d\tFATAL\t-\t%s%n", line, String.valueOf(error).replaceAll("\\s+", " "));
                continue;
            }
            for (SingleValidationMessage message : messages) {
                if (message.getSeverity().ordinal() >= ResultSeverityEnum.ERROR.ordinal()) {
                    out.printf("%d\t%s\t%s\t%s%n", line, message.getSeverity(), message.getLocationString(),
                        message.getMessage().replaceAll("\\s+", " "));
                }
            }
        }
        out.printf("done %d%n", line);
    }
}
